"""Versions order as semver says, and wishes take what they say."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.types import Subject
from placement.versions import newest, parse_version, parse_wish, resolve

IN_ORDER = (
    "0.0.1",
    "1.0.0-0",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9.0",
    "1.10.0",
    "2.0.0-rc.1",
    "2.0.0",
    "10.0.0",
)


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(IN_ORDER)))
def test_precedence_is_that_of_semver(lower: str, higher: str) -> None:
    assert parse_version(lower) < parse_version(higher)


@given(st.permutations(IN_ORDER))
def test_the_newest_does_not_depend_on_the_order(versions: list[str]) -> None:
    assert newest(versions) == "10.0.0"


@pytest.mark.parametrize(
    "text",
    [
        "", "1", "1.2", "v1.2.3", "1.2.3+build", "01.2.3", "1.2.03", "1.2.3-01", "1.2.3-", "1.2.3-a..b", "1.2.3 ",
        "1.2.3\n", "١.2.3", "-1.2.3", "1.2.3-é", "1." + "9" * 200 + ".0", "1.2.3-" + "a" * 200,
    ],
)  # fmt: skip
def test_what_is_not_a_version_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="semantic version"):
        parse_version(text)


@pytest.mark.parametrize(
    ("wish", "accepted", "refused"),
    [
        ("2.1.0", "2.1.0", "2.1.1 2.1.0-rc.1"),
        ("=2.1.0", "2.1.0", "2.1.1"),
        ("*", "0.0.1 9.9.9", "1.0.0-rc.1"),
        (">=2.0 <3", "2.0.0 2.9.9", "1.9.9 3.0.0 3.0.0-rc.1 2.5.0-rc.1"),
        (">= 2.0  < 3", "2.0.0", "3.0.0"),
        (">2", "3.0.0", "2.0.0 2.9.9"),
        (">2.1", "2.2.0", "2.1.9"),
        ("<=2.1", "2.1.9 0.1.0", "2.2.0"),
        ("<2", "1.9.9", "2.0.0 2.0.0-rc.1"),
        ("!=2.1.0", "2.0.0 3.0.0", "2.1.0"),
        (">=2 !=2.1.0", "2.0.0 2.1.1", "2.1.0 1.0.0"),
        ("~1.4", "1.4.0 1.4.9", "1.5.0 1.3.9"),
        ("~1.4.2", "1.4.2 1.4.9", "1.4.1 1.5.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("^1.4.2", "1.4.2 1.9.0", "1.4.1 2.0.0"),
        ("^0.3.1", "0.3.1 0.3.9", "0.3.0 0.4.0"),
        ("^0.0.3", "0.0.3", "0.0.4 0.0.2"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.1 0.9.0", "1.0.0"),
        ("2", "2.0.0 2.9.9", "1.9.9 3.0.0"),
        ("2.1", "2.1.0 2.1.9", "2.2.0"),
        ("^1 || ^3", "1.2.0 3.4.5", "2.0.0 4.0.0"),
        ("1.0.0 || 3.0.0-rc.1", "1.0.0 3.0.0-rc.1", "3.0.0 3.0.0-rc.2"),
        (">=2.0.0-rc.1", "2.0.0-rc.1 2.0.0-rc.2 2.0.0 3.0.0", "2.0.0-beta 2.1.0-rc.1 3.0.0-rc.1"),
        ("^2.0.0-rc.1", "2.0.0-rc.1 2.5.0", "2.5.0-rc.1 3.0.0-rc.1"),
        (">=1 !=2.0.0-rc.1", "2.0.0", "2.0.0-rc.1 2.0.0-rc.2"),
    ],
)  # fmt: skip
def test_a_wish_takes_what_it_says(wish: str, accepted: str, refused: str) -> None:
    parsed = parse_wish(wish)
    assert [one for one in accepted.split() if not parsed.accepts(one)] == []
    assert [one for one in refused.split() if parsed.accepts(one)] == []


@pytest.mark.parametrize(
    "text",
    [
        "", "  ", "latest", ">=", "1.2.3.4", ">=1,<2", "v2", "1 ||", "|| 1", "1 - 2", "1.x", "!=1.2", "2.0.0+b", "=>1",
        "channel:", "channel: Stable", "channel: a b", "*" * 200,
    ],
)  # fmt: skip
def test_what_is_not_a_wish_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]{3,} [a-z]{2,}"):
        parse_wish(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (parse_version, parse_wish):
        try:
            read(text)
        except ValueError:
            pass


SUBJECT = Subject(
    "model",
    "digits",
    {"1.0.0": "", "1.9.0": "wrong labels", "2.0.0": "", "2.1.0-rc.1": ""},
    {"stable": "1.0.0", "beta": "2.1.0-rc.1", "old": "1.9.0", "lost": "7.0.0"},
)


@pytest.mark.parametrize(
    ("wish", "version"),
    [("*", "2.0.0"), ("<2", "1.0.0"), ("channel: stable", "1.0.0"), ("channel:beta", "2.1.0-rc.1"),
     ("2.1.0-rc.1", "2.1.0-rc.1"), (">=2.1.0-0", "2.1.0-rc.1")],
)  # fmt: skip
def test_the_newest_that_is_not_withdrawn_is_taken(wish: str, version: str) -> None:
    assert resolve(parse_wish(wish), SUBJECT) == (version, "")


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (">=3", "no version of digits is in >=3"),
        ("1.9.0", "every version of digits in 1.9.0 is withdrawn"),
        ("channel: gamma", "digits has no channel gamma"),
        ("channel: old", "channel old points to 1.9.0: wrong labels"),
        ("channel: lost", "channel lost points to 7.0.0: it does not exist"),
    ],
)
def test_where_none_fits_the_reason_says_why(wish: str, reason: str) -> None:
    assert resolve(parse_wish(wish), SUBJECT) == ("", reason)
