"""An entry's values as a Helm chart gets them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from agent.wire.canonical import Json
from agent.wire.chart import BadChartValue, helm_values


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"threshold": "0.6"}, {"threshold": 0.6}),
        ({"threshold": "'0.6'"}, {"threshold": "0.6"}),
        ({"image.tag": "v1.27", "image.pull": "true"}, {"image": {"tag": "v1.27", "pull": True}}),
        ({"enabled": "no", "rate": "1e-4", "count": "-3"}, {"enabled": "no", "rate": 0.0001, "count": -3}),
        ({"hosts": "[a, b]", "limits": "{cpu: 100m}"}, {"hosts": ["a", "b"], "limits": {"cpu": "100m"}}),
        (
            {"padded": "010", "date": "2026-01-01", "port": "22:22"},
            {"padded": 10, "date": "2026-01-01", "port": "22:22"},
        ),
        ({"empty": "", "nothing": "null"}, {"empty": None, "nothing": None}),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_values_are_read_as_yaml_1_2_under_dotted_names(given: Mapping[str, str], wanted: Json) -> None:
    assert helm_values(given) == wanted


@pytest.mark.parametrize(
    "given",
    [
        {"image": "a", "image.tag": "b"},
        {"a.b.c": "1", "a.b": "2"},
        {"a..b": "1"},
        {"a.": "1"},
        {"a": "[1, 2"},
        {"a": "&x [*x]"},
        {"a": "{1: 2}"},
        {"a": "!!python/object:os.system {}"},
        {"a": "x" * 70_000},
    ],
    ids=str,
)
def test_what_contradicts_itself_or_is_no_yaml_is_refused(given: Mapping[str, str]) -> None:
    with pytest.raises(BadChartValue) as refused:
        helm_values(given, "model/reader")
    assert "model/reader" in str(refused.value)
