"""What people write about rollouts, windows and guards, as typed definitions."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from agent.wire.windows import parse_clock, zone
from gitops.field_types import LabelKey, Labels, LabelValue, Name, Spec

_AMOUNT: Final = re.compile(r"(\d{1,9})(%?)\Z")
_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)\Z")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _amount(value: Any) -> str:
    text = str(value) if type(value) in (int, str) else ""
    found = _AMOUNT.match(text)
    if found is None or (found[2] and int(found[1]) > 100):
        raise ValueError(f"`{str(value)[:40]}` is no number of clusters: write 5 or 20%")
    return text


def _duration(text: str) -> str:
    if _DURATION.match(text) is None:
        raise ValueError(f"`{text[:40]}` is no duration: write 90s, 30m, 2h or 1d")
    return text


def _clock(text: str) -> str:
    try:
        parse_clock(text)
    except ValueError:
        raise ValueError(f'`{text[:40]}` is no time of day: write "02:30"') from None
    return text


def _zone(text: str) -> str:
    try:
        zone(text)
    except ValueError:
        raise ValueError(f"`{text[:64]}` is no time zone: write a name like Europe/Rome") from None
    return text


AmountText = Annotated[
    str,
    BeforeValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d{1,9}%?$"}],
            "format": "amount",
        }
    ),
]
Duration = Annotated[
    str,
    AfterValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,6}[smhd]$", "format": "duration"}),
]
Clock = Annotated[
    str,
    AfterValidator(_clock),
    WithJsonSchema({"type": "string", "pattern": r"^[0-2]\d:[0-5]\d$", "format": "time of day"}),
]
Zone = Annotated[str, AfterValidator(_zone), WithJsonSchema({"type": "string", "format": "time zone"})]


def seconds(duration: str) -> float:
    """Return the seconds of a duration that was checked."""
    found = _DURATION.match(duration)
    assert found is not None
    return float(int(found[1]) * _UNITS[found[2]])


class WaveExpression(Spec):
    """One label requirement, as in Kubernetes."""

    key: LabelKey = Field(description="Key of the label.", examples=["tier"])
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="`NotIn` and `DoesNotExist` hold where the key is absent."
    )
    values: tuple[LabelValue, ...] = Field(default=(), description="At least one for `In` and `NotIn`.")


class WaveSpec(Spec):
    """Clusters that are updated together: by labels, or up to a share of all."""

    name: Name | None = Field(default=None, description="For people.  Left out: its number, or its percentage.")
    match_labels: Labels = Field(default_factory=dict, description="Labels that its clusters have.")
    match_expressions: tuple[WaveExpression, ...] = Field(default=(), description="Requirements of their labels.")
    percent: int | None = Field(
        default=None,
        ge=1,
        le=100,
        description="Of the decision, cumulative, without deferred clusters, rounded up; instead of labels.",
    )
    max_concurrent: AmountText | None = Field(default=None, description="In place of the rollout's.")
    max_failures: AmountText | None = Field(default=None, description="In place of the rollout's.")
    min_success: AmountText | None = Field(default=None, description="In place of the rollout's.")
    approve: bool = Field(default=False, description="It begins only after `edgeferry rollout approve`.")


class RolloutSpec(Spec):
    """How a change goes over the chosen clusters."""

    later: ClassVar[tuple[str, ...]] = ("prefetch",)

    waves: tuple[WaveSpec, ...] = Field(
        default=(), description="In order; the last one takes all that are left. Left out: one wave of all."
    )
    max_concurrent: AmountText | None = Field(
        default=None, description="In flight at once: a number, or a share of the wave. Left out: all of it."
    )
    soak: Duration = Field(default="0s", description="A cluster must stay healthy for so long to count as done.")
    progress_deadline: Duration = Field(
        default="2h", description="A started cluster on which nothing moved for so long has failed; silence counts."
    )
    max_failures: AmountText | None = Field(
        default=None, description="Per wave. Left out: 0 for the first wave, 5% for the others."
    )
    min_success: AmountText | None = Field(
        default=None, description="Per wave. Left out: all that are not deferred for the first, 1 for the others."
    )
    on_failure: Literal["revert", "pause"] = Field(
        default="revert", description="`revert`: everybody gets back what ran before. `pause`: nobody else is started."
    )
    approve: bool = Field(
        default=False, description="Every wave after the first waits for `edgeferry rollout approve`."
    )


class WindowSpec(Spec):
    """When the cluster may switch, by its own clock and time zone."""

    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = Field(
        default=(), description="Days on which it opens. Left out: every day."
    )
    start: Clock = Field(alias="from", description="When it opens.", examples=["02:00"])
    end: Clock = Field(alias="to", description="When it closes; before `from`: on the next day.", examples=["05:00"])
    timezone: Zone = Field(default="UTC", description="Name of the IANA database.", examples=["Europe/Rome"])


class MaxOfflineAge(Spec):
    """How long a cluster may hear nothing of its hub."""

    age: Duration = Field(description="Since overlays could be asked for last; at least an hour.", examples=["72h"])
    action: Literal["keep", "stop"] = Field(
        default="keep",
        description="`keep`: it goes on and says so. `stop`: what runs is stopped until it hears again.",
    )
