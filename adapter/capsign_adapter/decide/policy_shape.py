"""Parses the bytes of a policy document: YAML, then the shape of `policy_document.py`. A problem is
reported with its path and its remedy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from capsign_adapter.decide import durations, strict_yaml
from capsign_adapter.decide.policy_document import WORDING, PolicyDocument

MAX_BYTES = 4 * 1024 * 1024
"""Largest policy document: 10,000 grants in ordinary writing."""

MAX_NODES = 500_000
"""Most values in a policy document."""

MAX_REPORTED = 20
"""Most problems named in one error."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: where (a path such as "grants[2].key"), what, and how to put it right."""

    path: str
    what: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.path}: " if self.path else ""
        return f"{where}{self.what} {self.fix}".strip()


class PolicyError(Exception):
    """The document is not a policy. Nothing of it is in force."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = [str(problem) for problem in self.problems[:MAX_REPORTED]]
        if len(self.problems) > MAX_REPORTED:
            lines.append(f"... and {len(self.problems) - MAX_REPORTED} more.")
        super().__init__("\n".join(lines))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "Did you mean 'x'?", or the words there are, or "" if there are none or too many to say."""
    names = sorted(known)
    close = difflib.get_close_matches(word[:64], names[:10_000], n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"There is: {', '.join(names)}." if 0 < len(names) <= 16 else ""


def decode(data: bytes) -> PolicyDocument:
    """Returns the document in its shape. Raises PolicyError."""
    try:
        raw = strict_yaml.load(data, MAX_BYTES, MAX_NODES)
    except strict_yaml.YamlError as error:
        raise PolicyError([Problem("", str(error), "")]) from None
    try:
        return msgspec.convert(raw, PolicyDocument)
    except msgspec.ValidationError as error:
        raise PolicyError([_problem(str(error))]) from None


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of the document, for editors."""
    made = msgspec.json.schema(PolicyDocument)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "capsign policy, version 1",
        **made,
    }


_KINDS = {
    "array": "a list",
    "object": "a mapping",
    "str": "text",
    "int": "a whole number",
    "bool": "true or false",
    "null": "nothing",
    "null | int": "a whole number",
    "int | null": "a whole number",
    "object | null": "a mapping",
}


def _problem(message: str) -> Problem:
    """Returns an error of msgspec, with its path, in words for the person who wrote the policy."""
    what, _, where = message.partition(" - at `")
    path = where.removesuffix("`").removeprefix("$").removeprefix(".")
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.DOTALL):
        name = found[1][:64]
        return Problem(
            path,
            f"There is no field {name!r} here.",
            did_you_mean(name, _fields(path)) or "Take it out.",
        )
    if found := re.fullmatch(r"Object missing required field `(.*)`", what):
        return Problem(path, f"The field {found[1]!r} is missing.", "Add it.")
    if found := re.fullmatch(r"Invalid enum value '?(.*?)'?", what, re.DOTALL):
        choices = [str(value) for value in _literals(path)]
        return Problem(
            path,
            f"{found[1][:64]!r} is not one of the values.",
            f"Use one of: {', '.join(choices)}.",
        )
    if what.startswith("Expected `str` matching regex "):
        # By the path: in the message the pattern is written as Python writes a string.
        kind = _type_at(path)
        pattern = kind.pattern if isinstance(kind, inspect.StrType) else None
        return Problem(path, f"This must be {WORDING.get(pattern or '', what)}.", "Correct it.")
    if found := re.fullmatch(r"Expected `(.*)`, got `(.*)`", what):
        return _wrong_kind(path, found[1], found[2])
    if re.fullmatch(r"Expected `(array|str)` of length >= 1", what):
        return Problem(path, "This is empty.", "Fill it in.")
    if found := re.fullmatch(r"Expected `(array|str)` of length (<=|>=) (\d+)", what):
        unit = "items" if found[1] == "array" else "characters"
        return Problem(
            path,
            f"This has {_size(found[2], found[3])} {unit}.",
            "Shorten it." if found[2] == "<=" else "Fill it in.",
        )
    if found := re.fullmatch(r"Expected `int` (<=|>=) (\d+)", what):
        return Problem(
            path,
            f"This number must be {'at most' if found[1] == '<=' else 'at least'} {found[2]}.",
            "Correct it.",
        )
    return Problem(path, f"{what}.", "Correct it.")


def _size(sign: str, number: str) -> str:
    return f"more than {number}" if sign == "<=" else f"fewer than {number}"


def _wrong_kind(path: str, wanted: str, got: str) -> Problem:
    want, have = _KINDS.get(wanted, wanted), _KINDS.get(got, got)
    if have == "text" and want == _KINDS["int"]:
        want = "a whole number of up to 18 digits, as in 100"
    if wanted == "str" and got in {"int", "bool"}:
        fix = "Give it a unit, as in 15m." if _is_duration(path) else "Put it in quotes."
        return Problem(path, f"This must be {want}, and was read as {have}.", fix)
    if not path:
        return Problem(
            "", f"The document is {have}.", "A policy is a mapping that starts with 'version: 1'."
        )
    return Problem(
        path, f"This must be {want}, and is {have}.", "Correct it, or take the field out."
    )


def _type_at(path: str) -> inspect.Type:
    """Returns the declared type at a path such as "grants[2].rate"."""
    kind = inspect.type_info(PolicyDocument)
    for step in re.findall(r"[A-Za-z_][A-Za-z_0-9]*|\[\d*\.*\]", path):
        if isinstance(kind, inspect.UnionType):
            kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
        if isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        elif isinstance(kind, inspect.StructType):
            kind = next(field.type for field in kind.fields if field.encode_name == step)
    if isinstance(kind, inspect.UnionType):
        kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
    return kind


def _fields(path: str) -> list[str]:
    kind = _type_at(path)
    return (
        [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []
    )


def _is_duration(path: str) -> bool:
    kind = _type_at(path)
    return isinstance(kind, inspect.StrType) and kind.pattern == durations.PATTERN


def _literals(path: str) -> tuple[Any, ...]:
    kind = _type_at(path)
    return tuple(kind.values) if isinstance(kind, inspect.LiteralType) else ()
