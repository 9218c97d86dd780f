"""Digests of trees: what decides whether something must be built again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

IGNORED = ("__pycache__", ".mypy_cache", ".ruff_cache")


def files(path: Path) -> Iterator[Path]:
    """The files at or below a path, sorted; what tools leave behind is not content."""
    if path.is_file():
        yield path
        return
    for child in sorted(path.iterdir()):
        if child.name not in IGNORED:
            yield from files(child)


def digest(root: Path, paths: Iterable[str], *facts: str) -> str:
    """SHA-256, hex, over names, executable bits and bytes of files below `root`, and over further
    facts.
    """
    hasher = hashlib.sha256()
    for fact in facts:
        _field(hasher, fact.encode())
    for path in sorted(set(paths)):
        for file in files(root / path):
            _field(hasher, str(file.relative_to(root)).encode())
            _field(hasher, b"x" if file.stat().st_mode & 0o100 else b"-")
            _field(hasher, file.read_bytes())
    return hasher.hexdigest()


def _field(hasher: hashlib._Hash, data: bytes) -> None:
    hasher.update(len(data).to_bytes(8, "big"))
    hasher.update(data)


def copy_tree(source: Path, destination: Path) -> None:
    """Copies content only, with the same modes on every machine."""
    for file in files(source):
        target = destination / file.relative_to(source)
        place(file, target)


def place(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copies one file. Whoever runs the build may have any umask; the image does not."""
    make_directories(target.parent)
    shutil.copyfile(source, target)
    target.chmod(mode)


def make_directories(path: Path) -> None:
    if not path.is_dir():
        make_directories(path.parent)
        path.mkdir()
        path.chmod(0o755)
