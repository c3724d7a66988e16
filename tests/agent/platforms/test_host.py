"""Platform host: every action, with real processes and files."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.actions import (
    Announce,
    ContentChanged,
    ModelPoint,
    Refresh,
    Remove,
    Repair,
    Retire,
    Stage,
    Staged,
    Start,
    Switch,
)
from agent.actions import Test as Question
from agent.inference import SelfTestFailed
from agent.platforms.host import HostPlatform, NotForHosts
from agent.platforms.host_files import PathTaken
from agent.platforms.host_forward import PortTaken
from agent.platforms.host_orders import NotRunning
from agent.platforms.host_supervise import ProgramMissing
from agent.tree import fingerprint
from agent.wire.release import Entry, Runtime, SelfTest
from tests.agent.platforms.host_site import alive, ask, until

pytest_plugins = ["tests.agent.platforms.host_fixtures"]


def test_a_started_candidate_gets_no_request_and_a_switched_one_gets_all(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    site.platform.execute(Start(one))
    seen = site.until_current(one)
    assert (seen.serving, seen.url, seen.drift) == (False, "", "")
    site.platform.execute(Switch(one, None))
    seen = site.seen(one)
    assert (seen.serving, seen.health, seen.drift, seen.message) == (True, "current", "", "")
    assert seen.url == f"http://127.0.0.1:{site.config.first_port}"
    assert ask(seen.url)["say"] == "1.0.0"


def test_every_action_may_be_done_twice(site: Any) -> None:
    one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0")
    for entry, old in ((one, None), (two, one)):
        site.platform.execute(Start(entry))
        site.platform.execute(Start(entry))
        site.until_current(entry)
        before = site.seen(entry)
        site.platform.execute(Switch(entry, old))
        site.platform.execute(Switch(entry, old))
        pid = ask(site.seen(entry).url)["pid"]
        site.platform.execute(Repair(entry, "nothing is wrong"))
        assert ask(site.seen(entry).url)["pid"] == pid
        assert before.digest == entry.digest
    for _ in range(2):
        site.platform.execute(Retire(one))
    assert ask(site.seen(two).url)["say"] == "2.0.0"
    for _ in range(2):
        site.platform.execute(Remove("model", "m"))
    assert site.observe().seen == ()


def test_a_name_keeps_its_port_over_versions_removal_and_new_agents(site: Any) -> None:
    url = site.up(site.entry("m", "1.0.0")).url
    other = site.up(site.entry("n", "1.0.0")).url
    assert url != other
    assert site.up(site.entry("m", "2.0.0")).url == url
    site.platform.execute(Remove("model", "m"))
    site.again()
    assert site.up(site.entry("m", "3.0.0")).url == url


def test_a_child_gets_its_values_and_its_models_and_nothing_of_the_agent(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFERRY_TOKEN", "a secret")
    one = site.entry("app", "1.0.0", kind="workload", values={"threshold": "0.6"}, uses=("defect-detector",))
    points = (
        ModelPoint("defect-detector", "2.1.0", "http://127.0.0.1:18000", "/p"),
        ModelPoint("other", "1.0.0", "http://127.0.0.1:18001"),
    )
    answer = ask(site.up(one, *points).url)
    environment = {
        name: value for name, value in answer["env"].items() if name not in ("LC_CTYPE", "PWD", "SHLVL", "_")
    }
    home = str(site.state / "host" / "run" / "workload-app")
    assert environment.pop("EDGEFERRY_INSTANCE")
    assert environment.pop("PATH")
    assert environment == {
        "HOME": home,
        "LANG": "C.UTF-8",
        "mode": "",
        "threshold": "0.6",
        "DEFECT_DETECTOR_URL": "http://127.0.0.1:18000",
        "DEFECT_DETECTOR_PATH": "/p",
        "DEFECT_DETECTOR_VERSION": "2.1.0",
        "EDGEFERRY_MODELS": f"{home}/models.json",
    }
    assert answer["cwd"] == home
    assert answer["argv"][2] == str(one.model)


def test_placeholders_are_replaced_once(site: Any) -> None:
    script = str(site.state / "runtime.py")
    command = (sys.executable, script, "{port}", "{model}", "--name={name}", "{workload}/x", "{other}", "{{name}}")
    answer = ask(site.up(site.entry("m", "1.0.0", command=command)).url)
    one = next(iter(site.known.values()))
    assert answer["argv"][3:] == ["--name=m", f"{one.content}/x", "{other}", "{m}"]


@pytest.mark.parametrize("asked", ["model", "workload"])
def test_what_runs_goes_on_when_the_agent_is_gone(site: Any, asked: str) -> None:
    one = site.entry("m", "1.0.0", kind=asked)
    url = site.up(one).url
    pid = ask(url)["pid"]
    site.again()
    seen = site.seen(one)
    assert (seen.serving, seen.health, seen.url) == (True, "current", url)
    assert ask(url)["pid"] == pid


# ---- the self-test


def test_the_self_test_asks_the_candidate_and_not_what_serves(site: Any) -> None:
    site.up(site.entry("m", "1.0.0"))
    two = site.entry("m", "2.0.0", answer="2.0.0")
    site.platform.execute(Start(two))
    site.until_current(two)
    site.platform.execute(Question(two))


def test_a_wrong_answer_says_where(site: Any) -> None:
    one = site.entry("m", "1.0.0", answer="2.0.0")
    site.platform.execute(Start(one))
    site.until_current(one)
    with pytest.raises(SelfTestFailed, match=r'outputs\[0\]\.data\[0\] is "1\.0\.0", wanted "2\.0\.0"'):
        site.platform.execute(Question(one))


def test_a_candidate_that_dies_over_the_question_failed_and_one_that_is_not_there_is_started_again(site: Any) -> None:
    one = site.entry("m", "1.0.0", "dies-asked", answer="1.0.0")
    with pytest.raises(NotRunning):
        site.platform.execute(Question(one))
    site.platform.execute(Start(one))
    site.until_current(one)
    with pytest.raises(SelfTestFailed):
        site.platform.execute(Question(one))


def test_without_a_self_test_there_is_nothing_to_ask(site: Any) -> None:
    site.platform.execute(Question(site.entry("m", "1.0.0")))


# ---- failing processes


def test_a_candidate_that_exits_is_degraded_with_its_code_and_last_line(site: Any) -> None:
    one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0", "exit")
    url = site.up(one).url
    site.platform.execute(Start(two))
    seen = site.until(two, lambda seen: seen.health == "degraded")
    assert seen.message == "its process exited with code 1: no such layer: conv9"
    assert (seen.serving, seen.drift) == (False, "")
    site.platform.execute(Retire(two))
    assert site.seen(two) is None
    assert ask(url)["say"] == "1.0.0"


def test_a_candidate_that_never_gets_ready_stays_progressing(site: Any) -> None:
    one = site.entry("m", "1.0.0", "never")
    site.platform.execute(Start(one))
    for _ in range(5):
        assert site.seen(one).health == "progressing"


def test_a_program_that_is_not_there_stops_the_entry_and_leaves_nothing(site: Any) -> None:
    for command in (("no-such-program", "{port}"), (str(site.state / "runtime.py"), "{port}"), ("/", "{port}")):
        with pytest.raises(ProgramMissing):
            site.platform.execute(Start(site.entry("m", "1.0.0", command=command)))
    assert [one for one in site.observe().seen if one.health != "progressing"] == []
    site.platform.execute(Remove("model", "m"))
    assert site.observe().seen == ()


def test_what_serves_and_died_is_drift_and_a_repair_brings_it_back_on_the_same_port(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    for crashes in (1, 2):
        pid = ask(url)["pid"]
        os.kill(pid, signal.SIGKILL)
        seen = site.until(one, lambda seen: seen.health == "degraded")
        assert seen.serving
        assert "was ended by SIGKILL" in seen.drift
        site.platform.execute(Repair(one, seen.drift))
        assert site.until_current(one).url == url
        assert ask(url)["pid"] != pid
        assert json.loads((site.state / "host/entries/model-m.json").read_text())["crashes"] == crashes


def test_a_crash_loop_shows_how_often_and_the_last_word(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    site.up(one)
    one.model.write_text('{"say": "x", "mode": "exit"}')
    os.kill(ask(site.seen(one).url)["pid"], signal.SIGKILL)
    for times in range(1, 5):
        seen = site.until(one, lambda seen: seen.health == "degraded")
        site.platform.execute(Repair(one, seen.drift))
        seen = site.until(one, lambda seen: seen.health == "degraded")
        assert f"({times} times started again)" in seen.message
        assert "no such layer: conv9" in seen.drift
    with pytest.raises(OSError, match="503"):
        ask(seen.url)


def test_a_request_that_comes_while_a_process_is_brought_back_waits_for_it(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    os.kill(ask(url)["pid"], signal.SIGKILL)
    seen = site.until(one, lambda seen: seen.health == "degraded")
    site.platform.execute(Repair(one, seen.drift))
    assert ask(url)["say"] == "1.0.0"


def test_a_process_that_ignores_sigterm_is_killed_and_takes_its_children_along(site: Any) -> None:
    one, two = site.entry("m", "1.0.0", "stubborn"), site.entry("m", "2.0.0")
    url = site.up(one).url
    pid = ask(url)["pid"]
    ask(url, "/fork")
    instance = ask(url)["env"]["EDGEFERRY_INSTANCE"]
    family = [pid, *_marked(instance)]
    assert len(set(family)) == 2
    site.replace(two, one)
    site.until_gone(*family)


def test_children_of_a_process_that_died_do_not_stay(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    ask(url, "/fork")
    answer = ask(url)
    family = _marked(answer["env"]["EDGEFERRY_INSTANCE"])
    os.kill(answer["pid"], signal.SIGKILL)
    site.until(one, lambda seen: "was ended by SIGKILL" in seen.message)
    site.until_gone(*family)


def _marked(instance: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"EDGEFERRY_INSTANCE={instance}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_logs_are_bounded(site: Any) -> None:
    one = site.entry("m", "1.0.0", "loud")
    site.up(one)
    logs = site.state / "host" / "logs"
    until(lambda: site.observe() and list(logs.glob("model-m-*.log.1")))
    until(lambda: site.observe() and all(path.stat().st_size <= 1 << 20 for path in logs.glob("model-m-*")))
    assert len(list(logs.glob("model-m-*"))) <= 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in logs.glob("*"))


# ---- ports


def test_a_backend_port_that_somebody_takes_is_no_fault_of_the_entry(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program listens on the port between our look and the runtime's start."""
    monkeypatch.setattr("agent.platforms.host_ports.secrets.randbelow", lambda _: 0)
    port = site.config.first_port + 20
    monkeypatch.setattr("agent.platforms.host_ports.is_free", lambda address, number: number == port)
    one = site.entry("m", "1.0.0")
    with socket.create_server(("127.0.0.1", port)):
        site.platform.execute(Start(one))
        monkeypatch.undo()
        assert site.until_current(one).health == "current"


def test_a_stable_port_that_nobody_knows_yet_is_another_where_it_is_taken(site: Any) -> None:
    with socket.create_server(("127.0.0.1", site.config.first_port)):
        assert site.up(site.entry("m", "1.0.0")).url == f"http://127.0.0.1:{site.config.first_port + 1}"


def test_a_stable_port_that_consumers_know_is_waited_for(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    site.platform.execute(Remove("model", "m"))
    two = site.entry("m", "2.0.0")
    site.platform.execute(Start(two))
    site.until_current(two)
    record = site.state / "host/entries/model-m.json"
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "reached": True}))
    site.again()
    with socket.create_server(("127.0.0.1", int(url.rsplit(":", 1)[1]))):
        with pytest.raises(PortTaken):
            site.platform.execute(Switch(two, None))
        seen = site.seen(two)
        assert seen.health == "progressing"
        assert "Address already in use" in seen.drift
    site.platform.execute(Repair(two, seen.drift))
    assert site.seen(two).health == "current"
    assert ask(url)["say"] == "2.0.0"


def test_two_agents_on_one_machine_share_a_range(sites: Any) -> None:
    first = sites("a")
    second = sites("b", first_port=first.config.first_port, last_port=first.config.last_port)
    urls = {one.up(one.entry("m", name)).url: name for one, name in ((first, "of-a"), (second, "of-b"))}
    assert len(urls) == 2
    assert all(ask(url)["say"] == name for url, name in urls.items())


# ---- the forwarder


def test_a_forwarder_that_was_killed_is_drift_and_a_repair_brings_it_back(site: Any) -> None:
    one, other = site.entry("m", "1.0.0"), site.entry("n", "1.0.0")
    url = site.up(one).url
    site.up(other)
    os.kill(site.platform._parts()[0].forwarder.status().pid, signal.SIGKILL)
    seen = site.until(one, lambda seen: bool(seen.drift))
    assert (seen.health, seen.drift) == ("progressing", "the forwarder is not running")
    site.platform.execute(Repair(one, seen.drift))
    assert ask(url)["say"] == "1.0.0"
    assert [one.health for one in site.observe().seen] == ["current", "current"]


def test_routes_that_somebody_forged_are_put_right(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    (site.state / "host/routes.json").write_text("{}")
    site.observe()
    assert site.seen(one).drift == ""
    assert ask(url)["say"] == "1.0.0"


def test_with_the_last_entry_the_forwarder_goes_and_nothing_is_left(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    pid = ask(site.up(one).url)["pid"]
    forwarder = site.platform._parts()[0].forwarder.status().pid
    site.platform.execute(Remove("model", "m"))
    assert not alive(pid)
    assert not alive(forwarder)
    left = {path.name for path in (site.state / "host").rglob("*") if path.is_file()}
    assert left == {"id", "lock", "ports.json", "routes.json", "forward.lock", "forwarder.log"}


def test_foreign_files_are_not_touched(site: Any) -> None:
    ours = site.entry("m", "1.0.0", delivery="file")
    site.up(ours)
    foreign = [site.state / "models/m/notes.txt", site.state / "models/other/current", site.state / "host/mine.txt"]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    site.platform.execute(Remove("model", "m"))
    site.platform.execute(Remove("model", "other"))
    assert all(path.read_text() == "mine" for path in foreign)
    assert not (site.state / "models/m/current").is_symlink()


# ---- switch: replace, and programs without a port


def test_replace_stops_the_old_one_first_and_a_failed_candidate_gives_its_place_back(site: Any) -> None:
    one, two = site.entry("m", "1.0.0", switch="replace"), site.entry("m", "2.0.0", "exit", switch="replace")
    url = site.up(one).url
    pid = ask(url)["pid"]
    site.platform.execute(Start(two))
    assert not alive(pid)
    site.until(two, lambda seen: seen.health == "degraded")
    seen = site.seen(one)
    assert (seen.serving, seen.health, seen.drift) == (True, "progressing", "")
    site.platform.execute(Retire(two))
    seen = site.seen(one)
    assert seen.drift
    site.platform.execute(Repair(one, seen.drift))
    assert ask(url)["say"] == "1.0.0"


def test_requests_are_held_while_one_replaces_the_other(site: Any) -> None:
    one, two = (site.entry("m", version, switch="replace") for version in ("1.0.0", "2.0.0"))
    url = site.up(one).url
    site.platform.execute(Start(two))
    asked = _in_thread(lambda: ask(url)["say"])
    site.until_current(two)
    site.platform.execute(Switch(two, one))
    assert asked() == "2.0.0"
    site.platform.execute(Retire(one))
    assert [seen.digest for seen in site.observe().seen] == [two.digest]


def test_a_program_without_a_port_never_runs_twice(site: Any) -> None:
    one, two = site.worker("w", "1.0.0"), site.worker("w", "2.0.0")
    site.up(one)
    first = site.starts("w")[0]["pid"]
    site.platform.execute(Start(two))
    assert not alive(first)
    site.until_current(two)
    site.platform.execute(Switch(two, one))
    site.platform.execute(Retire(one))
    assert len(site.starts("w")) == 2
    assert (site.seen(two).url, site.seen(two).health) == ("", "current")


def _in_thread(function: Any) -> Any:
    import threading

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()

    def join() -> Any:
        thread.join()
        return found[0]

    return join


# ---- return


def test_a_return_needs_no_start_and_loses_no_request(site: Any) -> None:
    one, two = site.entry("m", "1.0.0"), site.entry("m", "2.0.0")
    url = site.up(one).url
    site.replace(two, one)
    until(lambda: site.seen(one) is None)
    site.platform.execute(Switch(one, two))
    assert ask(url)["say"] == "1.0.0"
    site.platform.execute(Retire(two))
    assert site.until_current(one).serving


def test_a_first_version_that_failed_leaves_no_route(site: Any) -> None:
    one = site.entry("m", "1.0.0")
    url = site.up(one).url
    site.platform.execute(Retire(one))
    with pytest.raises(OSError):
        ask(url)
    until(lambda: site.observe().seen == ())


# ---- files


def test_a_file_is_delivered_by_a_path_that_never_is_missing(site: Any) -> None:
    one, two = (site.entry("f", version, delivery="file") for version in ("1.0.0", "2.0.0"))
    seen = site.up(one)
    path = Path(seen.path)
    assert path == site.state / "models/f/current"
    assert json.loads(path.read_text())["say"] == "1.0.0"
    assert (seen.health, seen.url) == ("current", "")
    stop = _in_thread_until_stopped(lambda: path.read_text())
    for _ in range(50):
        site.platform.execute(Switch(two, one))
        site.platform.execute(Switch(one, two))
    read = stop()
    assert read
    assert {json.loads(text)["say"] for text in read} <= {"1.0.0", "2.0.0"}
    site.platform.execute(Switch(two, one))
    site.platform.execute(Retire(one))
    assert [one.digest for one in site.observe().seen] == [two.digest]


def _in_thread_until_stopped(function: Any) -> Any:
    import threading

    found: list[Any] = []
    ended, begun = threading.Event(), threading.Event()

    def run() -> None:
        while not ended.is_set():
            found.append(function())
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()

    def stop() -> list[Any]:
        ended.set()
        thread.join()
        return found

    return stop


def test_a_link_that_somebody_changed_is_put_right(site: Any) -> None:
    one = site.entry("f", "1.0.0", delivery="file")
    path = Path(site.up(one).path)
    for spoil in (path.unlink, lambda: (path.unlink(), path.symlink_to("/etc/hostname"))):
        spoil()
        seen = site.seen(one)
        assert (seen.health, seen.drift) == ("progressing", "its stable path leads elsewhere")
        site.platform.execute(Repair(one, seen.drift))
        assert site.seen(one).health == "current"
        assert json.loads(path.read_text())["say"] == "1.0.0"


def test_a_file_in_the_place_of_the_link_is_not_ours_to_remove(site: Any) -> None:
    one = site.entry("f", "1.0.0", delivery="file")
    path = site.state / "models/f/current"
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(PathTaken):
        site.platform.execute(Switch(one, None))
    assert path.read_text() == "precious"


def test_changed_bytes_are_seen_and_not_delivered_as_if_they_were_right(site: Any) -> None:
    one = site.entry("f", "1.0.0", delivery="file")
    site.up(one)
    one.model.write_text("tampered")
    seen = site.seen(one)
    assert (seen.health, seen.drift) == ("degraded", "somebody changed its content")
    with pytest.raises(ContentChanged):
        site.platform.execute(Repair(one, seen.drift))
    one.model.write_text('{"say": "staged again"}')
    for action in (Start(one), Repair(one, seen.drift)):
        with pytest.raises(ContentChanged):
            site.platform.execute(action)
    again = replace(one, verified=fingerprint(one.model))
    site.platform.execute(Repair(again, seen.drift))
    assert site.seen(again).health == "current"


def test_a_folder_is_delivered_as_a_folder(site: Any) -> None:
    one = site.entry("f", "1.0.0", delivery="file")
    (one.content / "labels.txt").write_text("a b c")
    folder = Staged(one.entry, one.files, one.content, one.content, fingerprint(one.content))
    site.known[one.digest] = folder
    path = Path(site.up(folder).path)
    assert (path / "labels.txt").read_text() == "a b c"
    assert (path / "model.json").exists()


def test_content_that_is_not_there_is_not_delivered(site: Any) -> None:
    one = site.entry("f", "1.0.0", delivery="file")
    one.model.unlink()
    with pytest.raises(ContentChanged):
        site.platform.execute(Start(one))


# ---- announce and refresh


def test_consumers_find_their_models_in_files(site: Any) -> None:
    points = (ModelPoint("b", "1.0.0", path="/with space/x"), ModelPoint("a-b", "2.0.0", "http://127.0.0.1:1"))
    site.platform.execute(Announce("edgeferry-models", points))
    site.platform.execute(Announce("other", (ModelPoint("c", "3.0.0", "http://c"),)))
    env = (site.state / "models/models.env").read_text()
    assert env == (
        "A_B_URL=http://127.0.0.1:1\nA_B_VERSION=2.0.0\nB_PATH='/with space/x'\nB_VERSION=1.0.0\n"
        "C_URL=http://c\nC_VERSION=3.0.0\n"
    )
    announced = site.observe().announced
    assert announced == {"edgeferry-models": (points[1], points[0]), "other": (ModelPoint("c", "3.0.0", "http://c"),)}
    (site.state / "models/models.env").write_text("EVIL=1\n")
    assert site.observe().announced == {}
    site.platform.execute(Announce("edgeferry-models", points))
    assert (site.state / "models/models.env").read_text() == env
    for namespace in announced:
        site.platform.execute(Announce(namespace, ()))
    assert not list((site.state / "models").iterdir())


def test_a_restart_for_new_models_has_the_new_ones_and_loses_no_request(site: Any) -> None:
    app = site.entry("app", "1.0.0", kind="workload", uses=("m",))
    url = site.up(app, ModelPoint("m", "1.0.0", "http://m")).url
    before = ask(url)["pid"]
    stop = _in_thread_until_stopped(lambda: ask(url)["env"]["M_VERSION"])
    site.platform.execute(Refresh(app, "restart", (ModelPoint("m", "2.0.0", "http://m"),)))
    until(lambda: site.observe() and ask(url)["env"]["M_VERSION"] == "2.0.0")
    versions = stop()
    assert versions == sorted(versions)
    site.until_gone(before)
    assert [seen.digest for seen in site.observe().seen] == [app.digest]


def test_a_restart_that_fails_keeps_the_old_process_and_says_so(site: Any) -> None:
    app = site.entry("app", "1.0.0", kind="workload", uses=("m",))
    url = site.up(app, ModelPoint("m", "1.0.0")).url
    before = ask(url)["pid"]
    content = app.model.read_text()
    app.model.write_text('{"say": "x", "mode": "exit"}')
    site.platform.execute(Refresh(app, "restart", (ModelPoint("m", "2.0.0"),)))
    seen = site.until(app, lambda seen: bool(seen.drift))
    assert "its restart for new models failed" in seen.drift
    assert ask(url)["pid"] == before
    app.model.write_text(content)
    site.platform.execute(Repair(app, seen.drift, (ModelPoint("m", "2.0.0"),)))
    until(lambda: site.observe() and ask(url)["env"]["M_VERSION"] == "2.0.0")
    assert site.seen(app).drift == ""


def test_a_worker_is_stopped_before_it_is_started_again(site: Any) -> None:
    one = site.worker("w", "1.0.0", "m")
    site.up(one, ModelPoint("m", "1.0.0"))
    site.platform.execute(Refresh(one, "restart", (ModelPoint("m", "2.0.0"),)))
    first, second = until(lambda: starts if len(starts := site.starts("w")) == 2 else None)
    assert not alive(first["pid"])
    assert [start["env"]["M_VERSION"] for start in (first, second)] == ["1.0.0", "2.0.0"]
    assert site.seen(one).serving


def test_a_reload_keeps_the_process_and_its_file_is_new(site: Any) -> None:
    app = site.entry("app", "1.0.0", kind="workload", uses=("m",))
    url = site.up(app, ModelPoint("m", "1.0.0")).url
    before = ask(url)["pid"]
    site.platform.execute(Refresh(app, "reload", (ModelPoint("m", "2.0.0"),)))
    told = until(lambda: ask(url)["told"] or None)
    assert [model["version"] for model in told[-1]["models"]] == ["2.0.0"]
    assert ask(url)["pid"] == before


def test_a_reload_does_not_end_a_program_without_a_handler(site: Any) -> None:
    app = site.entry("app", "1.0.0", "deaf", kind="workload", uses=("m",))
    url = site.up(app, ModelPoint("m", "1.0.0")).url
    before = ask(url)["pid"]
    site.platform.execute(Refresh(app, "reload", (ModelPoint("m", "2.0.0"),)))
    answer = ask(url)
    assert answer["pid"] == before
    assert "2.0.0" in Path(answer["env"]["EDGEFERRY_MODELS"]).read_text()


# ---- refusals, facts


RUN = Runtime("onnx", command=("run", "{port}"), protocol="v2")
REFUSED = {
    "container": Entry("model", "m", "1.0.0", "container"),
    "chart": Entry("model", "m", "1.0.0", "chart"),
    "host command": Entry("model", "m", "1.0.0", "server", runtime=Runtime("onnx", "image@sha256:1")),
    "no program": Entry("workload", "w", "1.0.0", "manifests"),
    "{port}": Entry("model", "m", "1.0.0", "server", runtime=Runtime("onnx", command=("run",))),
    "protocol": Entry("model", "m", "1.0.0", "server", runtime=Runtime("x", protocol="grpc", command=("r", "{port}"))),
    "selfTest": Entry("model", "m", "1.0.0", "file", self_test=SelfTest("a", "b")),
    "v2": Entry(
        "model", "m", "1.0.0", "server", runtime=Runtime("x", protocol="http", command=("r", "{port}")),
        self_test=SelfTest("a", "b"),
    ),
    "DNS label": Entry("model", "../../etc", "1.0.0", "server", runtime=RUN),
    "environment variable": Entry("model", "m", "1.0.0", "server", runtime=RUN, values={"A=B": "1"}),
    "NUL": Entry("model", "m", "1.0.0", "server", runtime=RUN, values={"A": "1\x002"}),
}  # fmt: skip


@pytest.mark.parametrize(("word", "entry"), REFUSED.items(), ids=REFUSED.keys())
def test_what_a_host_cannot_run_is_refused_with_the_reason(tmp_path: Path, word: str, entry: Entry) -> None:
    platform = HostPlatform(tmp_path, _config())
    assert word.replace("host command", "platform host") in platform.refuses(entry)
    with pytest.raises(NotForHosts):
        platform.execute(Start(Staged(entry)))
    platform.close()
    assert platform.refuses(Entry("model", "m", "1.0.0", "server", runtime=RUN)) == ""


def test_a_removal_by_a_name_that_is_none_does_nothing(site: Any) -> None:
    site.platform.execute(Remove("model", "../../escape"))
    site.platform.execute(Remove("model", "never-seen"))
    assert site.observe().seen == ()


def test_staging_is_not_the_platforms(site: Any) -> None:
    with pytest.raises(TypeError):
        site.platform.execute(Stage(site.entry("m", "1.0.0").entry))


def test_facts_are_in_kubernetes_words(site: Any) -> None:
    facts = site.platform.facts()
    assert facts["platform"] == "host"
    assert facts["os"] == "linux"
    assert facts["arch"] in ("amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x")
    assert int(facts["cpu.capacity"]) >= 1
    assert int(facts["memory.capacity"]) > 1 << 20


def _config() -> Any:
    from agent.config import Config

    return Config("milan-01", "f-1")
