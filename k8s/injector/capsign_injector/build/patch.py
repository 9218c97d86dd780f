"""RFC 6902 JSON Patch from one JSON document to another: minimal for the injector's changes, and
deterministic. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Operation = dict[str, Any]


def diff(before: Any, after: Any) -> list[Operation]:
    """The operations that turn `before` into `after`, in the order in which to apply them."""
    return list(_diff(before, after, ""))


def _diff(before: Any, after: Any, path: str) -> Iterator[Operation]:
    if before is after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted({*before, *after}):
            here = f"{path}/{escape(key)}"
            if key not in after:
                yield {"op": "remove", "path": here}
            elif key not in before:
                yield {"op": "add", "path": here, "value": after[key]}
            else:
                yield from _diff(before[key], after[key], here)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _diff_lists(before, after, path)
    elif not _equal(before, after):
        yield {"op": "replace", "path": path, "value": after}


def _diff_lists(before: list[Any], after: list[Any], path: str) -> Iterator[Operation]:
    """Compares items by identity if they have one, so that an item that is inserted does not
    rewrite those after it.
    """
    names_before, names_after = _names(before), _names(after)
    if names_before is None or names_after is None:
        yield from _diff_ends(before, after, path)
        return
    kept = set(names_after)
    for index in range(len(before) - 1, -1, -1):
        if names_before[index] not in kept:
            yield {"op": "remove", "path": f"{path}/{index}"}
    known = dict(zip(names_before, before, strict=True))
    order = [name for name in names_before if name in kept]
    for index, name in enumerate(names_after):
        if name not in known:
            order.insert(index, name)
            yield {"op": "add", "path": f"{path}/{index}", "value": after[index]}
            continue
        if order[index] != name:
            source = order.index(name)
            order.insert(index, order.pop(source))
            yield {"op": "move", "from": f"{path}/{source}", "path": f"{path}/{index}"}
        yield from _diff(known[name], after[index], f"{path}/{index}")


def _diff_ends(before: list[Any], after: list[Any], path: str) -> Iterator[Operation]:
    """Equal ends stay. What is between is changed in place, then removed from the end or added."""
    start = 0
    while start < min(len(before), len(after)) and _equal(before[start], after[start]):
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and _equal(before[-1 - end], after[-1 - end]):
        end += 1
    old, new = len(before) - end, len(after) - end
    for index in range(start, min(old, new)):
        yield from _diff(before[index], after[index], f"{path}/{index}")
    for index in range(old - 1, new - 1, -1):
        yield {"op": "remove", "path": f"{path}/{index}"}
    for index in range(max(old, start), new):
        yield {"op": "add", "path": f"{path}/{index}", "value": after[index]}


def _names(items: Sequence[Any]) -> list[str] | None:
    """What identifies each item: its mount path or its name. None if one is missing or not
    unique.
    """
    names = [
        one.get("mountPath", one.get("name")) if isinstance(one, Mapping) else None for one in items
    ]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return None
    return [str(name) for name in names]


def _equal(one: Any, other: Any) -> bool:
    """Equality of JSON values; unlike in Python, `true` does not equal 1."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


def escape(key: str) -> str:
    """A reference token of a JSON Pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")
