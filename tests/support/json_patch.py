"""Applies a JSON Patch as RFC 6902 section 4 says, strictly. Not the injector's code: what it makes
is judged here.
"""

from __future__ import annotations

import copy
from typing import Any


def apply(document: Any, operations: list[dict[str, Any]]) -> Any:
    """The patched document. Raises KeyError, IndexError or ValueError where the patch does not
    fit.
    """
    holder = {"": copy.deepcopy(document)}
    for operation in operations:
        path = operation["path"]
        if operation["op"] == "add":
            _add(holder, path, copy.deepcopy(operation["value"]))
        elif operation["op"] == "remove":
            _take(holder, path)
        elif operation["op"] == "replace":
            _take(holder, path)
            _add(holder, path, copy.deepcopy(operation["value"]))
        elif operation["op"] == "move":
            _add(holder, path, _take(holder, operation["from"]))
        else:
            raise ValueError(operation["op"])
    return holder[""]


def _parent(holder: dict[str, Any], path: str) -> tuple[Any, Any]:
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in path.split("/")]
    here: Any = holder
    for token in tokens[:-1]:
        here = here[_index(token)] if isinstance(here, list) else here[token]
    return here, tokens[-1]


def _index(token: str) -> int:
    if not token.isdecimal() or (token != "0" and token.startswith("0")):
        raise ValueError(token)
    return int(token)


def _add(holder: dict[str, Any], path: str, value: Any) -> None:
    parent, token = _parent(holder, path)
    if isinstance(parent, list):
        at = len(parent) if token == "-" else _index(token)
        if at > len(parent):
            raise IndexError(path)
        parent.insert(at, value)
    else:
        parent[token] = value


def _take(holder: dict[str, Any], path: str) -> Any:
    parent, token = _parent(holder, path)
    return parent.pop(_index(token)) if isinstance(parent, list) else parent.pop(token)
