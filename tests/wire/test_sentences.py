"""A sentence that tells a person to do something names the command that does it."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest
from support.pages import ROOT

PACKAGES = (
    "proto/python/capsign_wire",
    "evidence",
    "witness",
    "agent",
    "adapter",
    "clients/python",
    "clients/cli",
    "k8s/injector",
)

# What is to be done, and what the sentence must then name. Words of a command's own end in its
# backquotes.
TELLS = {
    r"if it is new|to begin anew": r"provision`",
    r"\b[Cc]reate (one|it|them)\b": r"`",
    r"\binitiali[sz]e it\b": r"`",
    r"open to others \(mode": r"`chmod|setfacl",
    r"[Ss]tart the agent\b": r"`capsign-agent",
    r"no authority yet": r"`capsign-adapter provision`",
    r"[Ii]nstall capsign again|[Ii]nstall it again": r"`pip|`helm",
}


@cache
def sentences():
    """Every text in the code that is no docstring, with f-strings' values as an ellipsis and
    neighbours joined. Not read before a test asks for it: every worker collects every module.
    """
    return list(_sentences())


def _sentences():
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.name.endswith(("_pb2.py", "_pb2_grpc.py")):
                continue
            tree = ast.parse(file.read_text(encoding="utf-8"))
            docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            inner = {
                id(part)
                for node in ast.walk(tree)
                if isinstance(node, ast.JoinedStr)
                for part in node.values
            }
            for node in ast.walk(tree):
                if id(node) in docs or id(node) in inner:
                    continue
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        part.value if isinstance(part, ast.Constant) else _shown(part)
                        for part in node.values
                    ]
                    yield file.relative_to(ROOT), node.lineno, "".join(map(str, parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield file.relative_to(ROOT), node.lineno, node.value


def _shown(part: ast.expr) -> str:
    """What stands for a value: a constant of ours that names a command counts as naming it."""
    return "`capsign-adapter provision`" if "MAKE_ONE" in ast.unparse(part) else "…"


@pytest.mark.parametrize("told", TELLS)
def test_who_is_told_to_do_something_is_told_how(told):
    found = [
        (file, line, text)
        for file, line, text in sentences()
        if re.search(told, text) and " " in text
    ]
    for file, line, text in found:
        assert re.search(TELLS[told], text), f"{file}:{line} names no command: {text}"
