"""Draws the house into docs/architecture.md: one picture for each process, made from the imports.

`make docs` writes them, `make check` compares (`--check`). A box is a room (a folder) or a module
beside the rooms; an arrow says that something in the one imports something of the other. Where a
longer way leads there too, the arrow is left out.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp

PAGE = Path(__file__).with_name("architecture.md")
PROCESSES = {
    "capsign": "The client",
    "capsign_agent": "The agent",
    "capsign_adapter": "The adapter",
    "capsign_injector": "The injector",
    "capsign_cli": "The command line",
}
SHARED = ("capsign_wire", "capsign_evidence", *PROCESSES)
"""Packages of ours that a picture may show beside its own."""

LIBRARIES = ("biscuit_auth", "click", "cryptography", "grpc", "pkcs11", "psycopg", "rich", "yaml")
"""Libraries worth a word in the box that imports them: each is kept to few rooms."""

_PLACE = "<!-- picture: {package} -->\n{body}<!-- end of the picture -->"


@dataclass(frozen=True)
class Picture:
    """A package's boxes with what they import of each other: box → boxes, box → libraries."""

    package: str
    boxes: dict[str, set[str]]
    libraries: dict[str, set[str]]

    def mermaid(self) -> str:
        """The picture as GitHub draws it."""
        lines = ["```mermaid", "flowchart TD"]
        for box in sorted(self.boxes):
            told = "<br/>".join(part for part in (f"<b>{box}</b>", *self._words(box)) if part)
            lines.append(f'  {_id(box)}["{told}"]')
        for box, targets in sorted(self.boxes.items()):
            lines += [f"  {_id(box)} --> {_id(target)}" for target in sorted(targets)]
        return "\n".join([*lines, "```", ""])

    def _words(self, box: str) -> Iterator[str]:
        yield _first_sentence(f"{self.package}.{box}" if box not in SHARED else box)
        if libraries := sorted(self.libraries.get(box, ())):
            yield f"<i>{', '.join(libraries)}</i>"


def draw(package: str, graph: grimp.ImportGraph) -> Picture:
    """The picture of one package."""
    boxes: dict[str, set[str]] = {}
    libraries: dict[str, set[str]] = {}
    for module in sorted(graph.modules):
        if module.partition(".")[0] != package:
            continue
        box = _box(module, package)
        if box is None:
            continue
        boxes.setdefault(box, set())
        for imported in graph.find_modules_directly_imported_by(module):
            root = imported.partition(".")[0]
            if root in LIBRARIES:
                libraries.setdefault(box, set()).add(root)
            target = _box(imported, package) if root == package else root
            if target is not None and target != box and (root == package or root in SHARED):
                boxes.setdefault(target, set())
                boxes[box].add(target)
    return Picture(package, _without_detours(boxes), libraries)


def _without_detours(boxes: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no longer way stands for: what is below a neighbour needs none of its own."""

    def below(start: str, seen: set[str]) -> set[str]:
        for target in boxes.get(start, ()):
            if target not in seen:
                seen.add(target)
                below(target, seen)
        return seen

    reached = {box: below(box, set()) for box in boxes}
    return {
        box: {
            target
            for target in targets
            if not any(
                target in reached[other] and box not in reached[other]
                for other in targets - {target}
            )
        }
        for box, targets in boxes.items()
    }


def _box(module: str, package: str) -> str | None:
    """The room that a module is in, or its own name beside the rooms; None for the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else None


def _first_sentence(module: str) -> str:
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    said = ast.get_docstring(ast.parse(Path(found.origin).read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=[.:;])\s", " ".join(said.split()), maxsplit=1)[0].rstrip(".:;")
    return re.sub(r"[`\"<>]", "", sentence if len(sentence) <= 70 else sentence[:67] + "…")


def _id(box: str) -> str:
    return box.strip("_") + "_" if box.startswith("__") else box


def document(text: str) -> str:
    """The page with every picture drawn anew."""
    ours = [package for package in SHARED if importlib.util.find_spec(package)]
    graph = grimp.build_graph(*ours, include_external_packages=True, cache_dir=None)
    for package in PROCESSES:
        begin, end = _PLACE.format(package=package, body="\0").split("\0")
        before, found, rest = text.partition(begin)
        if not found:
            raise SystemExit(f"{PAGE} has no place for {package}: write {begin.strip()}")
        after = rest.partition(end)[2]
        text = before + begin + draw(package, graph).mermaid() + end + after
    return text


if __name__ == "__main__":
    now = PAGE.read_text(encoding="utf-8")
    drawn = document(now)
    if "--check" not in sys.argv:
        PAGE.write_text(drawn, encoding="utf-8")
    elif drawn != now:
        sys.exit(f"{PAGE.name} does not show the house as it is: run `make docs`")
