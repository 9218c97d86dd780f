"""Splits a file of manifests into documents at the places at which kubectl does, keeping the bytes
of each. Pure.

kubectl reads a file that begins with `{` as JSON objects, one after the other, and changes to YAML
where that fails (after one object at most). It splits YAML at lines that begin with `---`, after
normalising line ends. The rules are those of apimachinery's YAMLOrJSONDecoder; the tests compare
with the real one.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from capsign_cli import go_yaml
from capsign_cli.go_yaml import UnreadableError

LOOKED_AT = 4096
"""Bytes within which the first character must be."""

_JSON_BLANKS = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the file. `value` is None if it holds no object: a separator, comments, an empty
    document. `text` is a document's YAML as kubectl's parser gets it; None for JSON and for what is
    no document.
    """

    raw: bytes
    value: Any = None
    text: str | None = None
    root: go_yaml.Node | None = None

    @property
    def is_json(self) -> bool:
        return self.text is None and self.value is not None


def pieces(data: bytes) -> list[Piece]:
    """All parts of the file, in order: their `raw` together are the file, except for blanks between
    JSON objects. Raises UnreadableError, go_yaml.TooLargeError.
    """
    found: list[Piece] = []
    rest, first_line = data, 1
    if data[:LOOKED_AT].lstrip(_JSON_BLANKS).startswith(b"{"):
        found, rest = _json(data)
        first_line += data[: len(data) - len(rest)].count(b"\n")
    found += _yaml(rest, first_line)
    return found


def _json(data: bytes) -> tuple[list[Piece], bytes]:
    """The JSON objects at the beginning, and the rest, which is YAML."""
    text = data.decode("utf-8", "surrogateescape")
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    found: list[Piece] = []
    read = 0
    while (at := _after_blanks(text, read)) < len(text):
        try:
            value, after = decoder.raw_decode(text, at)
        except RecursionError:
            raise UnreadableError("is nested too deeply") from None
        except ValueError as error:
            rest = _for_yaml(_bytes(text[read:]))
            if len(found) > 1 or rest is None:  # certainly JSON
                line = text.count("\n", 0, getattr(error, "pos", at)) + 1
                raise UnreadableError("is not JSON", line) from None
            return found, rest
        found.append(Piece(_bytes(text[at:after]), _bounded(value)))
        read = after
    return found, b""


def _for_yaml(data: bytes) -> bytes | None:
    """What kubectl's YAML reader gets where JSON ends: without blanks, up to the end of the line.
    None if there is too little.
    """
    at = 0
    while at + 4 <= len(data):
        letter = data[at : at + 4].decode("utf-8", "replace")[0]
        if letter == "\ufffd":
            return None
        if letter == "\n" or not letter.isspace():
            return data[at + 1 if letter == "\n" else at :]
        at += len(letter.encode())
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _after_blanks(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\r\n":
        at += 1
    return at


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _bounded(value: Any) -> Any:
    """The value with text as Go has it. Raises UnreadableError, TooLargeError."""
    count = 0

    def walk(one: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > go_yaml.MAX_DEPTH:
            raise UnreadableError("is nested too deeply")
        if count > go_yaml.MAX_NODES:
            raise go_yaml.TooLargeError(f"has more than {go_yaml.MAX_NODES} values")
        if isinstance(one, str):
            return go_yaml.unicode_of(one)
        if isinstance(one, dict):
            return {go_yaml.unicode_of(key): walk(held, depth + 1) for key, held in one.items()}
        if isinstance(one, list):
            return [walk(held, depth + 1) for held in one]
        return one

    return walk(value, 0)


def _yaml(data: bytes, line: int) -> list[Piece]:
    found: list[Piece] = []
    nodes = 0
    for raw, is_separator, at in _chunks(data):
        if is_separator:
            found.append(Piece(raw))
            continue
        text = _decoded(raw, line + at)
        try:
            root = go_yaml.compose(text)
            nodes += root.size if root is not None else 0
            if nodes > go_yaml.MAX_NODES:
                raise go_yaml.TooLargeError(f"has more than {go_yaml.MAX_NODES} values")
            value = go_yaml.value(root) if root is not None else None
        except UnreadableError as error:
            raise UnreadableError(
                str(error), line + at + error.line - 1 if error.line else 0
            ) from None
        found.append(Piece(raw, value, text, root) if value is not None else Piece(raw))
    return found


def _chunks(data: bytes) -> Iterator[tuple[bytes, bool, int]]:
    """The bytes of each document or separator, which of the two it is, and the number of lines
    before it.
    """
    begin = at = 0
    lines = first = 0
    while at < len(data):
        end = data.find(b"\n", at) + 1 or len(data)
        line = data[at:end]
        if line.startswith(b"---"):
            beside = line[3:].decode("utf-8", "replace").strip()
            if beside and not beside.startswith("#"):
                raise UnreadableError(
                    "has something after a `---`, where kubectl takes comments only,", lines + 1
                )
            if begin < at:
                yield data[begin:at], False, first
                yield line, True, lines
                begin, first = end, lines + 1
        at, lines = end, lines + 1
    if begin < at:
        yield data[begin:at], False, first


def _decoded(raw: bytes, line: int) -> str:
    """The text that kubectl's parser gets: every line ends with a newline, the last one too."""
    raw = raw.replace(b"\r\n", b"\n")
    if not raw.endswith(b"\n"):
        raw += b"\n"
    encoding = "utf-8"
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if raw.startswith(mark):
            raw, encoding = raw[len(mark) :], name
            break
    try:
        text = raw.decode(encoding)
        if text.startswith("\ufeff"):
            raise UnreadableError("begins with two byte order marks", line)
        return text
    except UnicodeDecodeError as error:
        raise UnreadableError("is not UTF-8", line + raw.count(b"\n", 0, error.start)) from None
