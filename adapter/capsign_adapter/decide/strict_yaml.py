"""A strict subset of YAML, for documents that grant rights.

libyaml reads the text; this module takes its events and refuses what can mean two things or cost
too much: duplicate keys, anchors and aliases, tags, several documents, control characters, and
anything past the bounds. A plain scalar is null, true, false, an integer or else text, so `no` and
`1.3` stay what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

MAX_DEPTH = 16
"""Deepest nesting of lists and mappings."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


class YamlError(Exception):
    """The text is not YAML of this kind. The message says where and what to do."""


def load(data: bytes, max_bytes: int, max_nodes: int) -> Any:
    """Returns the document as dicts, lists, strings, integers, booleans and None. Raises
    YamlError.
    """
    if len(data) > max_bytes:
        raise YamlError(
            f"The document has {len(data)} bytes; at most {max_bytes} are taken. Split it."
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise YamlError(f"Byte {error.start} is not UTF-8. Save the file as UTF-8.") from None
    try:
        return _Builder(yaml.parse(text, Loader=_LOADER), max_nodes).document()
    except yaml.YAMLError as error:
        raise YamlError(_syntax(error)) from None


def _syntax(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = (
        getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    )
    where = f"Line {mark.line + 1}, column {mark.column + 1}" if mark else "The document"
    return f"{where} is not YAML: {problem}."


class _Builder:
    """Builds values from events, and counts them, so that nothing is built beyond a bound."""

    def __init__(self, events: Iterator[Any], max_nodes: int) -> None:
        self._events = events
        self._left = max_nodes
        self._max_nodes = max_nodes

    def document(self) -> Any:
        start = [next(self._events), next(self._events)]
        if isinstance(start[1], yaml.StreamEndEvent):
            raise YamlError("The document is empty.")
        value = self._value(next(self._events), 0)
        next(self._events)
        if not isinstance(next(self._events), yaml.StreamEndEvent):
            raise YamlError(
                "There is more than one document. Keep one, without '---' between parts."
            )
        return value

    def _value(self, event: Any, depth: int) -> Any:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise YamlError(
                f"Line {line} has an anchor or alias. Write the value out where it is needed."
            )
        self._left -= 1
        if self._left < 0:
            raise YamlError(
                f"Line {line}: the document has more than {self._max_nodes} values. Split it."
            )
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, line)
        if event.tag is not None:
            raise YamlError(f"Line {line} has a tag. Leave it out.")
        if depth == MAX_DEPTH:
            raise YamlError(f"Line {line} is nested more than {MAX_DEPTH} deep.")
        if isinstance(event, yaml.SequenceStartEvent):
            return [self._value(each, depth + 1) for each in self._until(yaml.SequenceEndEvent)]
        return self._mapping(depth + 1)

    def _mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            self._value(event, depth)
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlError(f"Line {line} has a list or mapping as a key. Use a word.")
            if event.value in found:
                raise YamlError(
                    f"Line {line} repeats the key {event.value[:64]!r}. Keep one of the two."
                )
            if event.value == "<<":
                raise YamlError(f"Line {line} merges with '<<'. Write the values out.")
            found[event.value] = self._value(next(self._events), depth)
        return found

    def _until(self, end: type) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event


def _scalar(event: yaml.ScalarEvent, line: int) -> bool | int | str | None:
    text: str = event.value
    if event.tag is not None and event.tag != "!":
        raise YamlError(f"Line {line} has a tag. Leave it out.")
    if _CONTROL.search(text):
        raise YamlError(
            f"Line {line} has a line break or control character inside a value. Take it out."
        )
    if not event.implicit[0]:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else text
