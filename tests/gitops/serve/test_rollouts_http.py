"""Rollouts and orders over HTTP: only with the operator token, only real orders, never without a reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

ORDER = {"verb": "freeze", "object": "fleet", "by": "user/ada", "why": "inventory", "argument": ""}
TOKEN = {"Authorization": "Bearer op-token"}


def order(hub: Any, headers: dict[str, str] = TOKEN, **changes: Any) -> Any:
    return hub.ask("POST", "/v1/commands", body=json.dumps({**ORDER, **changes}).encode(), headers=headers)


@pytest.mark.parametrize("path", ["/v1/rollouts", "/v1/events"])
def test_looks_need_the_operator_token(hub: Any, path: str) -> None:
    assert hub.ask("GET", path).status == 401
    assert hub.ask("GET", path, headers=TOKEN).status == 200


def test_an_order_needs_the_operator_token(hub: Any) -> None:
    assert order(hub, headers={}).status == 401


@pytest.mark.parametrize(
    "changes",
    [
        {"verb": "delete"},
        {"object": "fleet/../x"},
        {"object": "rollout/Ä"},
        {"argument": "1; rm"},
        {"why": " "},
        {"by": ""},
        {"why": "x" * 3000},
    ],
    ids=str,
)
def test_what_is_no_order_is_refused_with_a_code(hub: Any, changes: dict[str, str]) -> None:
    answer = order(hub, **changes)
    assert answer.status == 400 and answer.json["code"] == "EF3104"


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"[" * 50_000, b"\xff"], ids=["empty", "list", "none", "deep", "bytes"]
)
def test_a_body_that_is_none_is_refused(hub: Any, body: bytes) -> None:
    assert hub.ask("POST", "/v1/commands", body=body, headers=TOKEN).status == 400


def test_a_service_without_a_hub_takes_no_orders(hub: Any) -> None:
    assert order(hub).status == 503


@pytest.mark.parametrize("query", ["after=-1", "limit=x", "after=" + "9" * 40])
def test_a_cursor_is_a_number(hub: Any, query: str) -> None:
    assert hub.ask("GET", f"/v1/events?{query}", headers=TOKEN).status == 400
