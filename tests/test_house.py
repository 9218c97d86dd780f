"""The measure of the house: modules of one idea, short functions, few parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
Function = ast.FunctionDef | ast.AsyncFunctionDef
PACKAGES = ("proto/python", "evidence", "agent", "adapter", "witness", "clients", "k8s")

LONG_MODULES = {
    "adapter/capsign_adapter/model/lifecycle.py": "every table of legal moves, in one place (I7)",
    "adapter/capsign_adapter/sign/fair_scheduler.py": "start-time fair queueing, and its rules",
    "adapter/capsign_adapter/store/schema.py": "every migration, in one place",
    "adapter/capsign_adapter/token/session.py": "all that is said to PKCS#11",
    "clients/python/capsign/async_signer.py": "the same API for asyncio, method by method",
    "clients/python/capsign/signer.py": "the client's API, documented where it is used",
    "evidence/capsign_evidence/leaf_reader.py": "every kind of leaf, as it is read",
    "proto/python/capsign_wire/metric_catalogue.py": "every metric, and every value of a label",
}
"""Modules above 350 lines that are one idea all the same, and which."""

MANY_PARAMETERS = {
    "Signer": "public, keywords",
    "AsyncSigner": "public, keywords",
    "selector_of": "the keywords of the public calls, once",
    "agent_batch": "the fields of a leaf",
    "CapabilityServicer": "wiring: the parts that it speaks to",
    "SigningServicer": "wiring: the parts that it speaks to",
    "Enrolment": "wiring: the parts that it speaks to",
    "resolve": "the columns of a row",
}
"""Classes and functions with a parameter list above 7, and why."""


def sources() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            name = str(file.relative_to(ROOT))
            if "_pb2" not in name and "/images/" not in name and ".venv" not in name:
                yield name, file.read_text(encoding="utf-8")


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, Function]]:
    """Each with the class that it is in, or its own name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from functions(node, node.name)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inside or node.name, node
            yield from functions(node, inside or node.name)
        else:
            yield from functions(node, inside)


def length(function: Function) -> int:
    """Lines without signature and docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> int:
    taken = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([one for one in taken if one.arg not in {"self", "cls"}])


def test_modules_are_one_idea() -> None:
    lengths = {
        name: text.count("\n") for name, text in sources() if not name.endswith("__init__.py")
    }
    assert median(lengths.values()) <= 120
    assert {name for name, lines in lengths.items() if lines > 350} == set(LONG_MODULES)


def test_functions_are_short() -> None:
    found = [length(one) for _, text in sources() for _, one in functions(ast.parse(text))]
    assert median(found) <= 10
    assert sum(lines > 30 for lines in found) < len(found) / 50


def test_parameter_lists_are_short() -> None:
    found = {
        owner
        for _, text in sources()
        for owner, one in functions(ast.parse(text))
        if parameters(one) > 7
    }
    assert found == set(MANY_PARAMETERS)
