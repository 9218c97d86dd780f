"""YAML as kubectl reads it: libyaml's grammar, and the Go library's rules for plain scalars. Pure.

Python's YAML has other rules. `22:30` is text in kubectl and the number 1350 in Python, `1e3` a
number in kubectl and text in Python; a key merged by `<<` is replaced in one and kept in the other.
What we pass on must keep its meaning. The rules are those of go.yaml.in/yaml v2 (resolve.go,
decode.go) and sigs.k8s.io/yaml; the tests compare with the real ones.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 200
"""Deepest nesting that is read; a manifest has about 20 levels."""
MAX_NODES = 2_000_000
"""Most values that are read, counting each use of an alias."""

_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = frozenset({"", "str", "bool", "int", "float", "null", "timestamp"})
_WORDS: dict[str, Any] = {
    **dict.fromkeys(
        ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True
    ),
    **dict.fromkeys(
        ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False
    ),
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
}
_INT = re.compile(
    r"(?P<sign>[-+]?)(0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)|(?P<dec>0|[1-9][0-9]*))",
    re.ASCII,
)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_DOT_FLOAT = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?", re.ASCII)
_DAY, _TIME = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}", r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}([.,][0-9]+)?"
_ZONE = r"(Z|[-+][0-9]{2}:[0-9]{2})"
_TIMESTAMP = re.compile(rf"{_DAY}([Tt]{_TIME}{_ZONE}| {_TIME})?", re.ASCII)
_BASES = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}

_MARK, _STAND_IN = "\ufeff", "\uf8ff"

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


class UnreadableError(ValueError):
    """Text that kubectl would not read either. `line` counts from 1; 0: not known."""

    def __init__(self, told: str, line: int = 0) -> None:
        self.line = line
        super().__init__(told)


class TooLargeError(ValueError):
    """More than MAX_DEPTH or MAX_NODES."""


@dataclass(slots=True)
class Node:
    """A value and its place in the text: from `start` (its anchor or tag, if it has one) up to
    `end`, counted in characters.
    """

    kind: str  # scalar, map, seq, alias
    start: int
    end: int
    line: int
    flow: bool = False
    tag: str = ""
    plain: bool = False
    text: str = ""
    aliased: bool = False
    children: list[Node] = field(default_factory=list)
    target: Node | None = None
    size: int = 1

    def pairs(self) -> list[tuple[Node, Node]]:
        """The entries of a map, in their order."""
        return list(zip(self.children[::2], self.children[1::2], strict=True))


def compose(text: str) -> Node | None:
    """The tree of the first document in a text; None if it has none. Raises UnreadableError,
    TooLargeError.

    Checked before anything is built, because a few lines with aliases of aliases can expand to
    gigabytes.
    """
    anchors: dict[str, Node] = {}
    open_: list[tuple[Node, int]] = []
    root: Node | None = None
    total = 0
    try:
        for event in yaml.parse(scannable(text), Loader=LOADER):
            if isinstance(event, yaml.DocumentEndEvent):
                break
            if isinstance(event, yaml.CollectionEndEvent):
                node, before = open_.pop()
                node.end, node.size = _index(event.end_mark), total - before
                continue
            if not isinstance(event, yaml.NodeEvent):
                continue
            node = _node(event, anchors, [each for each, _ in open_])
            total += node.size
            if open_:
                open_[-1][0].children.append(node)
            else:
                root = node
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((node, total - 1))
            if len(open_) > MAX_DEPTH:
                raise UnreadableError("is nested too deeply")
            if total > MAX_NODES:
                raise TooLargeError(f"has more than {MAX_NODES} values")
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, UnreadableError | TooLargeError):
            raise
        mark = getattr(error, "problem_mark", None)
        raise UnreadableError("is not YAML", mark.line + 1 if mark else 0) from None
    return root


def scannable(text: str) -> str:
    """The text for libyaml, unchanged except for byte order marks inside of it: libyaml skips one
    at the beginning of a line, Go's copy of it reads it as a character.
    """
    return text.replace(_MARK, _STAND_IN)


def _index(mark: Any) -> int:
    index: int = mark.index
    return index


def _node(event: Any, anchors: dict[str, Node], around: list[Node]) -> Node:
    start, end, line = _index(event.start_mark), _index(event.end_mark), event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        target = anchors.get(event.anchor or "")
        if target is None:
            raise UnreadableError("is not YAML", line)
        if any(each is target for each in around):
            raise UnreadableError(f"has a value that holds itself: *{event.anchor}", line)
        target.aliased = True
        return Node("alias", start, end, line, target=target, size=target.size)
    tag = (event.tag or "").removeprefix(_TAG)
    if isinstance(event, yaml.ScalarEvent):
        made = Node(
            "scalar",
            start,
            end,
            line,
            tag=tag,
            plain=event.implicit[0],
            text=event.value.replace(_STAND_IN, _MARK),
        )
    else:
        kind = "map" if isinstance(event, yaml.MappingStartEvent) else "seq"
        made = Node(kind, start, end, line, flow=bool(event.flow_style), tag=tag)
    if event.anchor is not None:
        anchors[event.anchor] = made
    return made


def value(node: Node) -> Any:
    """The value that kubectl reads. Raises UnreadableError."""
    if node.kind == "alias":
        assert node.target is not None
        return value(node.target)
    if node.kind == "seq":
        return [value(each) for each in node.children]
    if node.kind == "map":
        made: dict[str, Any] = {}
        _fill(node, made)
        return made
    found = _scalar(node)
    if isinstance(found, float) and not math.isfinite(found):
        raise UnreadableError("has a number that JSON cannot have", node.line)
    return found


def _fill(node: Node, made: dict[str, Any]) -> None:
    for key, held in node.pairs():
        if key.kind == "scalar" and key.text == "<<" and (key.plain or key.tag == "merge"):
            # In its turn, as any other key: what comes later in the text wins, and of several maps
            # the first.
            for each in reversed(held.children) if held.kind == "seq" else [held]:
                real = each.target if each.target is not None else each
                if real.kind != "map":
                    raise UnreadableError("merges what is no map", each.line)
                _fill(real, made)
            continue
        made[_key(key)] = value(held)


def _key(node: Node) -> str:
    real = node.target if node.target is not None else node
    found = _scalar(real) if real.kind == "scalar" else None
    if isinstance(found, str):
        return found
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int) and found < 2**63:
        return str(found)
    if isinstance(found, float):
        return _short_float(found)
    raise UnreadableError("has a key that JSON cannot have", node.line)


def _scalar(node: Node) -> Any:
    if not node.tag and not node.plain:
        return node.text
    if node.tag == "binary":
        try:
            raw = base64.b64decode(node.text.replace("\n", "").replace("\r", ""), validate=True)
        except (binascii.Error, ValueError):
            raise UnreadableError("has a !!binary that is not base64", node.line) from None
        return unicode_of(raw.decode("utf-8", "surrogateescape"))
    kind, found = resolve(node.text, node.tag)
    if node.tag not in {"", kind, "str"} and node.tag in _KNOWN_TAGS:
        if node.tag != "float" or kind != "int":
            raise UnreadableError(f"has a !!{node.tag} that is none", node.line)
        found = float(found)
    return found


def resolve(text: str, tag: str = "") -> tuple[str, Any]:
    """Kind and value of a plain scalar."""
    if tag == "str" or tag not in _KNOWN_TAGS:
        return "str", text
    first = text[:1]
    if (not first or first in "+-.0123456789yYnNtTfFoO~") and text in _WORDS:
        found = _WORDS[text]
        return ("null" if found is None else "bool" if isinstance(found, bool) else "float"), found
    if first == "." and _DOT_FLOAT.fullmatch(text):
        return _float(text)
    if first and first in "+-0123456789":
        if _TIMESTAMP.fullmatch(text):
            return "timestamp" if tag else "str", text
        return _number(text)
    return "str", text


def _number(text: str) -> tuple[str, Any]:
    bare = text.replace("_", "")
    found = _INT.fullmatch(bare)
    if found is not None:
        name = next(name for name in _BASES if found[name] is not None)
        number = int(found[name], _BASES[name])
        number = -number if found["sign"] == "-" else number
        if -(2**63) <= number < (2**63 if found["sign"] else 2**64):
            return "int", number
    if _FLOAT.fullmatch(bare):
        kind, number = _float(bare)
        return (kind, number) if kind == "float" else ("str", text)
    return "str", text


def _float(text: str) -> tuple[str, Any]:
    number = float(text)
    return (
        ("float", number) if math.isfinite(number) else ("str", text)
    )  # what is too large for one is text


def _short_float(number: float) -> str:
    """Go's strconv.FormatFloat(number, 'g', -1, 32), which makes map keys of numbers."""
    (single,) = struct.unpack("f", struct.pack("f", number))
    if not math.isfinite(single):
        return ".nan" if math.isnan(single) else ".inf" if single > 0 else "-.inf"
    for digits in range(9):
        text = f"{single:.{digits}e}"
        if struct.pack("f", float(text)) == struct.pack("f", single):
            break
    exponent = int(text.partition("e")[2])
    return text if exponent < -4 or exponent >= 6 else f"{single:.{max(0, digits - exponent)}f}"


def unicode_of(text: str) -> str:
    """Text as Go has it: each lone surrogate, and each byte that is not UTF-8, is U+FFFD."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
