"""What people order at the site outranks the release, and is taken back by them or by the next version."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.orders import FILE, Hold, NothingBefore, Orders, OrdersUnreadable, read_orders, with_rollback, write_orders
from tests.agent.simulated_site import EPOCH, Edge, model, workload

KEY = ("model", "digits")


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    one = Edge(tmp_path / "site", probation_s=0.4)
    one.settle(one.release(model()))
    return one


def roll_back(edge: Edge, wanted: str) -> None:
    assert edge.site is not None
    state = edge.site.book.states[KEY]
    write_orders(edge.root, with_rollback(Orders(), state, wanted, "it misses scratches", EPOCH))


@pytest.mark.parametrize("name", ["*", "model/digits"])
def test_what_is_held_stays_while_new_versions_are_fetched_and_wait(edge: Edge, name: str) -> None:
    write_orders(edge.root, Orders(held={name: Hold("calibrating", EPOCH)}))
    second = model(version="2.0.0")
    edge.settle(edge.release(second))
    assert edge.serves(*KEY) == "1.0.0"
    assert second[0].digest in edge.world.content, "it is at the site already"
    told = edge.reports()["model/digits"]
    assert (told.code, told.health) == ("EF4421", "current") and "calibrating" in told.message
    write_orders(edge.root, Orders())
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"


def test_what_is_held_is_repaired(edge: Edge) -> None:
    write_orders(edge.root, Orders(held={"*": Hold("", EPOCH)}))
    edge.settle()
    edge.world.reboot()
    edge.settle()
    assert edge.serves(*KEY) == "1.0.0"


def test_what_is_held_is_not_removed(edge: Edge) -> None:
    write_orders(edge.root, Orders(held={"model/digits": Hold("", EPOCH)}))
    edge.settle(edge.release())
    assert edge.serves(*KEY) == "1.0.0"
    write_orders(edge.root, Orders())
    edge.settle()
    assert edge.serves(*KEY) == ""


def test_the_others_go_on(edge: Edge) -> None:
    write_orders(edge.root, Orders(held={"model/digits": Hold("", EPOCH)}))
    edge.settle(edge.release(model(version="2.0.0"), model("letters")))
    assert (edge.serves(*KEY), edge.serves("model", "letters")) == ("1.0.0", "1.0.0")


def test_going_back_needs_nothing_but_the_disk_and_says_so(edge: Edge) -> None:
    second = model(version="2.0.0")
    edge.settle(edge.release(second))
    edge.bytes.fault = RuntimeError("nobody may be asked")
    roll_back(edge, second[0].digest)
    edge.settle()
    assert edge.serves(*KEY) == "1.0.0"
    told = edge.reports()["model/digits"]
    assert told.code == "EF4422" and "it misses scratches" in told.message and told.wanted == second[0].digest
    assert ("committed", "model/digits", "1.0.0") in edge.events()


def test_it_stays_back_over_a_reboot_and_goes_on_with_the_next_version(edge: Edge) -> None:
    second = model(version="2.0.0")
    edge.settle(edge.release(second))
    roll_back(edge, second[0].digest)
    edge.settle()
    edge.reboot()
    edge.settle()
    assert edge.serves(*KEY) == "1.0.0"
    edge.settle(edge.release(model(version="3.0.0")))
    assert edge.serves(*KEY) == "3.0.0"


def test_undone_it_goes_to_what_the_release_asks_for(edge: Edge) -> None:
    second = model(version="2.0.0")
    edge.settle(edge.release(second))
    roll_back(edge, second[0].digest)
    edge.settle()
    write_orders(edge.root, Orders())
    edge.settle()
    assert edge.serves(*KEY) == "2.0.0"


def test_a_first_version_has_nothing_before_it(edge: Edge) -> None:
    with pytest.raises(NothingBefore):
        roll_back(edge, model()[0].digest)


def test_a_workload_follows_a_model_that_was_rolled_back(edge: Edge) -> None:
    second = model(version="2.0.0")
    uses = [("digits", "*", "restart")]
    edge.settle(edge.release(second, workload(uses=uses)))
    roll_back(edge, second[0].digest)
    edge.settle()
    assert edge.serves(*KEY) == "1.0.0"
    assert "Refresh reader restart" in edge.world.log


@pytest.mark.parametrize("text", ["", "{", '{"format": 9}', '{"format": 1, "held": {"*": {"at": "soon"}}}'])
def test_orders_that_cannot_be_read_change_nothing_and_are_said(edge: Edge, text: str) -> None:
    write_orders(edge.root, Orders(held={"*": Hold("", EPOCH)}))
    edge.settle()
    (edge.root / FILE).write_text(text)
    edge.settle(edge.release(model(version="2.0.0")))
    assert edge.serves(*KEY) == "1.0.0", "what was ordered before goes on"
    assert edge.site is not None and edge.site.orders.fault is not None
    with pytest.raises(OrdersUnreadable):
        read_orders(edge.root)
