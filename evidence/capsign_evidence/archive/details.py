"""What only some kinds of entries and records have, and an event has no field of its own for: by
the name that it is recorded under, in words and numbers that JSON has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any

from capsign_wire.adapter.v1 import evidence_pb2, rollouts_pb2
from capsign_wire.algorithms import ALGORITHMS
from google.protobuf.descriptor import EnumDescriptor


def told(name: str, value: Any) -> Any:
    """A recorded value as JSON has it: enumerations by their word, bytes as hexadecimal, what has
    parts as a mapping of them. Empty for what is not stated.
    """
    if is_dataclass(value):
        return {part.name: told(part.name, getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return value.name.lower().replace("_", "-")
    words = _WORDS.get(name)
    return words(value) if words else value


def pairs(details: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is in details, for people: parts as `whole.part`, without those that are empty or 0."""
    for name, value in details.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{part}", inner) for part, inner in value.items() if inner)
        elif value:
            yield name, value


def words_of(enumeration: EnumDescriptor, prefix: str) -> dict[int, str]:
    """The word of each number of an enumeration, without that of what is not stated."""
    return {
        value.number: value.name.removeprefix(prefix).lower().replace("_", "-")
        for value in enumeration.values
        if value.number
    }


def _by(words: Mapping[int, str]) -> Callable[[int], Any]:
    """The word of a number; of one that has none the number, and nothing for 0."""
    return lambda number: words.get(number, number or "")


def _algorithm(number: int) -> Any:
    return ALGORITHMS[number].name if number in ALGORITHMS else number or ""


STAGES = words_of(rollouts_pb2.RolloutStage.DESCRIPTOR, "ROLLOUT_STAGE_")
"""Stages of a rollout, by their number."""

_WORDS: Mapping[str, Callable[[int], Any]] = {
    "before_algorithm": _algorithm,
    "after_algorithm": _algorithm,
    "stage": _by(STAGES),
    "pace": _by(words_of(rollouts_pb2.RolloutPace.DESCRIPTOR, "ROLLOUT_PACE_")),
    "verdict": _by(words_of(rollouts_pb2.RolloutVerdict.DESCRIPTOR, "ROLLOUT_VERDICT_")),
    "log_fault": _by(words_of(evidence_pb2.LogFault.DESCRIPTOR, "LOG_FAULT_")),
}
"""Fields that are recorded as the number of an enumeration."""
