"""What pages, docstrings and comments cite is there: files, tests, modules and names in them.

A page that names a file which was moved sends its reader away with nothing. Two were found by hand;
after a redesign there are dozens.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "capsign": "clients/python/capsign",
    "capsign_adapter": "adapter/capsign_adapter",
    "capsign_agent": "agent/capsign_agent",
    "capsign_cli": "clients/cli/capsign_cli",
    "capsign_evidence": "evidence/capsign_evidence",
    "capsign_witness": "witness/capsign_witness",
    "capsign_images": "k8s/images/capsign_images",
    "capsign_injector": "k8s/injector/capsign_injector",
    "capsign_wire": "proto/python/capsign_wire",
}
OF_THE_PAST = {"CHANGELOG.md"}
"""Pages that tell what was, and name it as it was called then."""
OF_OTHERS = {"det-keygen/ecdsa.py", "schema.proto", "check.py"}
"""Files of other projects, where a vector comes from; and what a page lets its reader save."""

FILE = re.compile(r"(?<![\w/.{}*<>-])((?:[\w.-]+/)*[\w-]+\.(?:py|proto|md|tpl|lock))(?:::(\w+))?\b")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
DOTTED = re.compile(r"`([a-z_]\w*(?:\.\w+)+)(?:\(\))?`")


@cache
def tracked() -> tuple[str, ...]:
    """Every file of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(name for name in listed.stdout.split("\n") if (ROOT / name).is_file())


@cache
def endings() -> dict[str, list[str]]:
    """Files by each way of citing them: `c.py`, `b/c.py`, `a/b/c.py`."""
    found: dict[str, list[str]] = {}
    for name in tracked():
        parts = name.split("/")
        for start in range(len(parts)):
            found.setdefault("/".join(parts[start:]), []).append(name)
    return found


@cache
def names_in(file: str) -> frozenset[str]:
    """What a module defines, at any depth, and what it imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.Attribute(ctx=ast.Store()):
                names.add(node.attr)
            case ast.alias():
                names.add((node.asname or node.name).rpartition(".")[2])
    return frozenset(names)


def texts() -> Iterator[tuple[str, str]]:
    """Each text that may cite: a page, or the docstrings and comments of a module."""
    for name in tracked():
        if name.endswith(".md") and name not in OF_THE_PAST:
            yield name, (ROOT / name).read_text()
        elif name.endswith(".py") and "_pb2" not in name and not name.startswith("tests/"):
            yield name, prose((ROOT / name).read_text())


def prose(source: str) -> str:
    """Comments, and strings that stand alone."""
    comments = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    ]
    alone = [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]
    return "\n".join(comments + alone)


def test_files_and_tests_that_are_cited_exist() -> None:
    wrong = []
    for where, text in texts():
        for path, test in FILE.findall(text):
            files = endings().get(path.removeprefix("../").removeprefix("./"), [])
            files = files or endings().get(path.lstrip("./"), [])
            if path in OF_OTHERS:
                continue
            if not files:
                wrong.append(f"{where}: there is no {path}")
            elif test and not any(test in names_in(file) for file in files):
                wrong.append(f"{where}: {path} has no {test}")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_links_between_pages_lead_to_a_file() -> None:
    wrong = [
        f"{where}: {link} is not there"
        for where in tracked()
        if where.endswith(".md")
        for link in LINK.findall((ROOT / where).read_text())
        if not (ROOT / where).parent.joinpath(link).exists()
    ]
    assert not wrong, "\n".join(wrong)


def test_every_decision_is_in_the_index() -> None:
    index = ROOT / "docs/decisions/README.md"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", index.read_text())
    assert listed == sorted(file.name for file in index.parent.glob("0*.md"))


def resolves(dotted: str, base: str) -> bool | None:
    """Whether `base` has this module, or this name in a module; None: it has not even the first."""
    folder, parts = ROOT / base, dotted.split(".")
    for at, part in enumerate(parts):
        if (folder / part).is_dir():
            folder = folder / part
        elif (file := folder / f"{part}.py").is_file():
            known = names_in(str(file.relative_to(ROOT)))
            return all(name in known for name in parts[at + 1 :])
        elif at == 0:
            return None
        else:
            init = folder / "__init__.py"
            known = names_in(str(init.relative_to(ROOT))) if init.is_file() else frozenset()
            return all(name in known for name in parts[at:])
    return True


@cache
def names_of_other_things() -> frozenset[str]:
    """Dotted names that are no modules: values of the chart, keys of configuration by section,
    and what stands as a string in the code (names of events and metrics, annotations).
    """
    strings = {
        node.value
        for name in tracked()
        if name.endswith(".py") and "_pb2" not in name and not name.startswith("tests/")
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    values = yaml.safe_load((ROOT / "k8s/chart/values.yaml").read_text())
    strings |= {f"{owner}.{field}" for owner, field in SETTINGS_OF_THE_INJECTOR}
    files = set(endings())
    return frozenset(strings | set(paths(values)) | set(settings()) | files | {WEBHOOK})


SETTINGS_OF_THE_INJECTOR = {("adapter", "enrolment_targets")}
"""Of its YAML file, which no page lists by section."""
WEBHOOK = "inject.capsign.dev"


def paths(values: object, above: str = "") -> Iterator[str]:
    """`adapter.store.type` and the like."""
    if isinstance(values, dict):
        for key, below in values.items():
            yield above + key
            yield from paths(below, f"{above}{key}.")


def settings() -> Iterator[str]:
    """`store.url` and the like, as the page of all settings has them."""
    section = ""
    for line in (ROOT / "docs/operations/configuration.md").read_text().splitlines():
        if heading := re.match(r"#+ `\[([\w.]+)\]`", line):
            section = heading[1]
        elif row := re.match(r"\| `(\w+)", line):
            yield f"{section}.{row[1]}"


def bases(where: str) -> list[str]:
    """Folders from which a text may name a module: its own and those above, or every package."""
    above = [str(folder) for folder in Path(where).parents if str(folder) != "."]
    return [*(a for a in above if (ROOT / a / "__init__.py").is_file()), *PACKAGES.values()]


def test_modules_and_names_that_are_cited_exist() -> None:
    wrong = []
    for where, text in texts():
        for dotted in DOTTED.findall(text):
            if FILE.fullmatch(dotted) or dotted in names_of_other_things():
                continue
            first, _, rest = dotted.partition(".")
            if first in PACKAGES:
                found = [resolves(rest, PACKAGES[first])]
            else:
                found = [resolves(dotted, base) for base in bases(where)]
            if not any(found) and False in found:
                wrong.append(f"{where}: `{dotted}` leads nowhere")
    assert not wrong, "\n".join(sorted(set(wrong)))
