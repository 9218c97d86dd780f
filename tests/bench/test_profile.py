"""The pictures of one call: from marks to steps, and from steps to a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from bench.profile.svg import picture
from bench.profile.timeline import STEPS, medians_us

US = 1000


def call(begin: int, *, each: int = US) -> list[tuple[int, str]]:
    """The marks of a call whose steps take equally long."""
    names = ["client.begin", *(step.mark for step in STEPS)]
    return [(begin + number * each, name) for number, name in enumerate(names)]


def test_each_step_lasts_from_the_mark_before_it() -> None:
    assert medians_us(call(5_000)) == [1.0] * len(STEPS)


def test_the_quickest_calls_are_taken() -> None:
    slow = [mark for number in range(9) for mark in call(10**9 * (1 + number), each=50 * US)]
    assert medians_us([*slow, *call(0)]) == [1.0] * len(STEPS)


def test_a_call_that_lacks_a_mark_is_left_out() -> None:
    torn = [mark for mark in call(0) if mark[1] != "disk.end"]
    assert medians_us([*torn, *call(10**9, each=2 * US)]) == [2.0] * len(STEPS)


def test_a_mark_that_was_never_made_is_named() -> None:
    with pytest.raises(ValueError, match=r"disk\.end"):
        medians_us([mark for mark in call(0) if mark[1] != "disk.end"])


def test_a_picture_says_in_text_what_its_bars_show() -> None:
    drawn = picture("One call", "a note", STEPS, [float(n) for n in range(1, len(STEPS) + 1)])
    text = " ".join(ET.fromstring(drawn).itertext())  # noqa: S314 # made here
    assert all(step.what in text for step in STEPS)
    assert "55 µs" in text
    assert "prefers-color-scheme: dark" in drawn
