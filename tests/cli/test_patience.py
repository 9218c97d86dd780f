"""What is watched outlasts a restart of the adapter that is asked."""

from __future__ import annotations

import pytest
from capsign_cli.failures import REFUSED, UNAVAILABLE, CliError
from capsign_cli.patience import patient

GONE = CliError(UNAVAILABLE, "UNREACHABLE", "No answer from the adapter.", "")


def answers(*script):
    left = list(script)

    def look():
        item = left.pop(0)
        if isinstance(item, Exception):
            raise item
        return item

    return look


def test_after_an_answer_silence_is_asked_again():
    look = patient(answers(1, GONE, GONE, 2, GONE, 3), pause_s=0)
    assert [look(), look(), look()] == [1, 2, 3]


def test_the_first_answer_is_not_waited_for():
    with pytest.raises(CliError, match="No answer"):
        patient(answers(GONE, 1), pause_s=0)()


def test_the_time_ends_it():
    look = patient(answers(1, GONE, 2), 0.0, pause_s=0)
    assert look() == 1
    with pytest.raises(CliError, match="No answer"):
        look()


def test_a_refusal_ends_it():
    look = patient(answers(1, CliError(REFUSED, "DENIED", "No.", ""), 2), pause_s=0)
    look()
    with pytest.raises(CliError, match="No"):
        look()
