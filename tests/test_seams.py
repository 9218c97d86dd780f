"""Tests speak to public names: what still does not is counted here, and may only become less.

Two kinds. `private`: `x._name`, where `_name` is one of ours, of an object not the test's own;
or the import of one. `patched`: `monkeypatch.setattr` on a module, a class or an object of ours. A
test that does either holds back every change of what it looks into. Rather hand in a fake
(`tests/support`), a clock, a limit; make public what others may well ask; or ask by what is done.

What stays is of two sorts. Some break a part on purpose, so that a test is seen to notice: they are
named in `BROKEN_ON_PURPOSE`, with the reason, and not counted. The others are left to be mended: a
number that has become smaller is written down here, smaller.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("adapter", "agent", "clients", "evidence", "k8s", "proto", "softhsm", "witness")

BROKEN_ON_PURPOSE: dict[str, list[str]] = {
    "adapter/front/test_i6_revocation_has_no_lag.py": ["RevocationBarrier, 'enter'"],
    "contract/test_store_revocation_race.py": ["RevocationBarrier, 'drain'"],
    "contract/test_key_service.py": ["'capsign_adapter.model.key_versions.KEY_VERSION', table"],
    "contract/test_store.py": ["'capsign_adapter.model.key_versions.KEY_VERSION', table"],
    "adapter/decide/test_authority_schedule.py": ["authority_schedule, name"],
    "adapter/decide/test_policy_change.py": [
        "'capsign_adapter.decide.policy_strength.TABLE', broken"
    ],
    "adapter/decide/test_biscuits.py": ["biscuits, '_appended'", "biscuits, 'capability_in'"],
    "adapter/test_i2_least_authority.py": ["*BROKEN[defect]", "admission, '_common'"],
    "adapter/test_i10_no_downgrade.py": ["self.target, self.name"],
}
"""File and what it patches: without this defect nobody would know that the test can fail."""

LEFT: dict[str, tuple[int, int]] = {
    "adapter": (0, 4),
}
"""Folder: how many are private, how many patched."""


@cache
def ours() -> frozenset[str]:
    """Every private name that our own code gives to anything."""
    found = set[str]()
    for file in (one for top in SOURCES for one in sorted((ROOT / top).rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_bytes())):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                    found.add(name)
                case ast.ClassDef(name=name):
                    found.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
    return frozenset(name for name in found if private(name))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imports(tree: ast.Module) -> dict[str, str]:
    """Name in this file: whole name of what was imported."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.asname or one.name.split(".")[0]: one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return found


def is_ours(target: ast.expr, imported: dict[str, str]) -> bool:
    """Whether what is patched is: of something that was not imported it is assumed."""
    if isinstance(target, ast.Constant):
        return str(target.value).startswith("capsign")
    while isinstance(target, ast.Attribute | ast.Subscript | ast.Call):
        target = target.func if isinstance(target, ast.Call) else target.value
    whole = imported.get(target.id, "capsign") if isinstance(target, ast.Name) else "capsign"
    return whole.startswith(("capsign", "support"))


def accesses(text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Kind, and the source of it, of each in a file."""
    tree = ast.parse(text)
    imported = imports(tree)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name) if name in names:
                yield "private", ast.unparse(node)
            case ast.ImportFrom(module=str(module)) if module.startswith("capsign"):
                for one in node.names:
                    if private(one.name):
                        yield "private", f"{module}.{one.name}"
            case ast.Call(func=ast.Attribute(attr="setattr" | "delattr"), args=[target, *_]):
                if is_ours(target, imported):
                    yield "patched", ", ".join(map(ast.unparse, node.args[:2]))


def left() -> dict[str, tuple[int, int]]:
    """Folder of tests/: how many of each kind, without those that are broken on purpose."""
    found: dict[str, Counter[str]] = {}
    for file in sorted((ROOT / "tests").rglob("*.py")):
        name = file.relative_to(ROOT / "tests")
        kinds = found.setdefault(name.parts[0], Counter())
        for kind, source in accesses(file.read_text(), ours()):
            if source not in BROKEN_ON_PURPOSE.get(str(name), []):
                kinds[kind] += 1
    return {
        folder: (kinds["private"], kinds["patched"]) for folder, kinds in found.items() if kinds
    }


def test_tests_speak_to_public_names() -> None:
    """166 private names and 125 patches of our own held back every change of what they looked
    into.
    """
    grown = {
        folder: found
        for folder, found in left().items()
        if any(now > before for now, before in zip(found, LEFT.get(folder, (0, 0)), strict=True))
    }
    assert not grown, "use a public name, a clock or limit as an argument, or a fake"


def test_what_is_broken_on_purpose_is_still_there() -> None:
    for name, sources in BROKEN_ON_PURPOSE.items():
        text = (ROOT / "tests" / name).read_text()
        assert {source for _, source in accesses(text, ours())} >= set(sources), name


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("store._hidden", ["private"]),
        ("store.part._hidden.shown", ["private"]),
        ("from capsign_agent.agent import _hidden", ["private"]),
        ("monkeypatch.setattr(store, 'commit', late)", ["patched"]),
        ("monkeypatch.setattr('capsign.agent_socket.SLICE', 1)", ["patched"]),
        ("from capsign_agent import agent\nmonkeypatch.setattr(agent.os, 'fsync', f)", ["patched"]),
        ("with monkeypatch.context() as patch:\n  patch.setattr(store, 'a', b)", ["patched"]),
        ("self._hidden", []),
        ("store.__class__", []),
        ("named._replace(a=1)", []),
        ("import os\nmonkeypatch.setattr(os, 'fsync', f)", []),
        ("monkeypatch.setattr('sys.stdin', f)", []),
    ],
)
def test_each_kind_is_seen(text: str, kinds: list[str]) -> None:
    assert [kind for kind, _ in accesses(text, frozenset({"_hidden"}))] == kinds
