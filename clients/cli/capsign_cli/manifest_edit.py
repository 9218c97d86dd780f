"""Writes what changed in a document into its own text, so that everything else stays as it was,
comments and formatting included. Pure.

The resulting text is read again and must have the wanted value. If it has not (an anchor inside of
what changed, a duplicate key), there is no result, and the whole document has to be written anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from capsign_cli import go_yaml
from capsign_cli.go_yaml import Node

Write = Callable[[Any], str]
"""Writes a value as block YAML that ends with a newline."""

Edit = tuple[int, int, str]


class _CannotError(Exception):
    """The change cannot be written into this text."""


def edited(text: str, root: Node, before: Any, after: Any, write: Write) -> str | None:
    """The text of a document with the value `after` in place of `before`; None if it cannot be
    written into this text.
    """
    try:
        changes = sorted(
            _Editor(text, write).changes(root, before, after), key=lambda edit: edit[0]
        )  # inner ones first
        made, at = [], 0
        for start, end, new in changes:
            if start < at:
                raise _CannotError
            made += [text[at:start], new]
            at = end
        result = "".join([*made, text[at:]])
        read = go_yaml.compose(result)
        if read is not None and same(go_yaml.value(read), after):
            return result
    except (_CannotError, go_yaml.UnreadableError, go_yaml.TooLargeError):
        pass
    return None


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; `1`, `1.0` and `true` are different."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(held, other[key]) for key, held in one.items()
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _json(value: Any) -> str:
    """The value as flow YAML, on one line."""
    return json.dumps(value, ensure_ascii=False)


class _Editor:
    def __init__(self, text: str, write: Write) -> None:
        self._text = text
        self._write = write
        self._dashes: list[int] | None = None

    def changes(self, node: Node, before: Any, after: Any) -> Iterator[Edit]:
        """Raises _CannotError."""
        if before is after or same(before, after):
            return
        if node.kind == "alias" or node.aliased:
            raise _CannotError  # it is said once and meant in several places
        if (
            node.kind == "map"
            and node.children
            and isinstance(after, dict)
            and before.keys() <= after.keys()
        ):
            yield from self._map(node, before, after)
        elif node.kind == "seq" and node.children and isinstance(after, list):
            yield from self._seq(node, before, after)
        else:
            yield self._anew(node, after)

    def _map(self, node: Node, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Edit]:
        places = {
            name.text: held for name, held in node.pairs() if name.kind == "scalar"
        }  # of a key twice, the last one counts
        for key, value in after.items():
            if key in before and not same(before[key], value):
                if key not in places:
                    raise _CannotError  # `<<` brought it, or it is spelt in another way
                yield from self.changes(places[key], before[key], value)
        added = {key: value for key, value in after.items() if key not in before}
        if added and node.flow:
            end = node.children[-1].end
            yield (
                end,
                end,
                "".join(f", {_json(key)}: {_json(value)}" for key, value in added.items()),
            )
        elif added:
            end, blanks = self._line_end(node), " " * self._column(node.children[0].start)
            yield end, end, blanks + self._indented(self._write(added), len(blanks))

    def _seq(self, node: Node, before: list[Any], after: list[Any]) -> Iterator[Edit]:
        shorter = min(len(before), len(after))
        head = next((at for at in range(shorter) if not same(before[at], after[at])), shorter)
        tail = next(
            (at for at in range(shorter - head) if not same(before[-1 - at], after[-1 - at])),
            shorter - head,
        )
        old, new = before[head : len(before) - tail], after[head : len(after) - tail]
        if len(old) == len(new):
            for at, (one, other) in enumerate(zip(old, new, strict=True), head):
                yield from self.changes(node.children[at], one, other)
        elif old:
            yield self._anew(node, after)
        elif node.flow and head < len(before):
            start = node.children[head].start
            yield start, start, "".join(f"{_json(one)}, " for one in new)
        elif node.flow:
            end = node.children[-1].end
            yield end, end, "".join(f", {_json(one)}" for one in new)
        elif head < len(before):
            dash = self._dash(node.children[head])
            yield (
                dash,
                dash,
                self._indented(self._write(new), self._column(dash)) + " " * self._column(dash),
            )
        else:
            end, blanks = (
                self._line_end(node.children[-1]),
                " " * self._column(self._dash(node.children[0])),
            )
            yield end, end, blanks + self._indented(self._write(new), len(blanks))

    def _anew(self, node: Node, after: Any) -> Edit:
        """The value in flow style, which is allowed wherever a value is."""
        if node.kind != "scalar" and not node.flow:
            if not isinstance(after, dict | list) or not after:
                raise _CannotError
            column = self._column(
                node.children[0].start if node.kind == "map" else self._dash(node.children[0])
            )
            start = node.children[0].start if node.kind == "map" else self._dash(node.children[0])
            return start, self._line_end(node), self._indented(self._write(after), column)
        if node.kind == "scalar" and self._text[node.start : node.start + 1] in {"|", ">"}:
            raise _CannotError
        text = _json(after)
        return (
            node.start,
            node.end,
            text if self._text[node.start - 1 : node.start] in {" ", "\n", ""} else f" {text}",
        )

    def _column(self, at: int) -> int:
        return at - (self._text.rfind("\n", 0, at) + 1)

    def _dash(self, item: Node) -> int:
        """Position of the `-` of a list item: the last one before it that begins an item."""
        if self._dashes is None:
            tokens = yaml.scan(go_yaml.scannable(self._text), Loader=go_yaml.LOADER)
            self._dashes = [
                each.start_mark.index for each in tokens if isinstance(each, yaml.BlockEntryToken)
            ]
        dashes = [at for at in self._dashes if at < item.start]
        if not dashes:
            raise _CannotError
        return dashes[-1]

    def _line_end(self, node: Node) -> int:
        """Position of the line after a value."""
        while node.kind in {"map", "seq"} and not node.flow:
            node = node.children[-1]
        if node.end and self._text[node.end - 1] == "\n" and node.end > node.start:
            return node.end
        newline = self._text.find("\n", node.end)
        if newline < 0:
            raise _CannotError
        return newline + 1

    @staticmethod
    def _indented(text: str, column: int) -> str:
        """The text with every line but the first indented."""
        first, *others = text.rstrip("\n").split("\n")
        return (
            "\n".join([first, *(" " * column + line if line else line for line in others)]) + "\n"
        )
