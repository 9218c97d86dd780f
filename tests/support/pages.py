"""The blocks of the project's pages, and what becomes of each: run here, run on a cluster, or not
run for a reason.

A block of commands or Python is run by a test. What cannot be has a comment on the line before it,
which readers do not see:

    <!-- not run: it takes ten minutes -->

On the pages of `CLUSTER`, the blocks marked `bash test` are run on a real Kubernetes
(tests/system/cluster/test_guides.py). On all others every block is run, against a `make demo`
(tests/docs/test_pages.py and its neighbour for rollouts).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

CLUSTER = ("k8s/README.md", "docs/operations/kubernetes.md", "docs/operations/responders.md")
"""Pages whose commands need a cluster, in the order in which they are run."""

FIRST = "README.md"
"""Followed before the others: its `make demo` starts what they use, and its variables are theirs,
as in one terminal.
"""

ROLLOUTS = (
    "docs/operations/algorithm-migration.md",
    "docs/operations/rollback.md",
    "docs/operations/rotation.md",
)
"""Pages that wait for the stages of rollouts."""

COMMANDS = frozenset({"sh", "bash", "shell", "console", "python"})
DATA = frozenset({"mermaid", "yaml", "toml", "json", "text", "ini", ""})
"""Languages of what is looked at and not executed; a block without one is a picture or an
output.
"""

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)(?P=fence) *$",
    re.DOTALL | re.MULTILINE,
)
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^\n]+?) -->\n\Z")
_PROGRAMS = (
    r"capsign(?:-\w+)?|kubectl|helm|make|pip|python3?|openssl|curl|docker|"
    r"apt-get|pkcs11-tool|sqlite3|git|go|npm"
)
_A_COMMAND = re.compile(rf"^\s*(?:\$ |(?:\S*/)?(?:{_PROGRAMS}) )", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    """What stands behind the language."""
    text: str
    reason: str
    """Why it is not run; empty if nothing is said."""

    @property
    def at(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def executable(self) -> bool:
        """Whether it is something to run, whatever it says it is."""
        return self.language in COMMANDS or (
            self.language in {"", "text"} and bool(_A_COMMAND.search(self.text))
        )

    @property
    def on_cluster(self) -> bool:
        return self.page in CLUSTER and self.words == ("test",)

    @property
    def here(self) -> bool:
        """Whether it is run against the demo."""
        return self.executable and self.page not in CLUSTER and not self.reason


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    return list(_blocks(page, (ROOT / page).read_text(encoding="utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        language, *words = found["info"].split() or [""]
        before = text[: found.start()]
        marker = _NOT_RUN.search(before)
        line = before.count("\n") + 1
        yield Block(
            page, line, language, tuple(words), found["text"], marker["reason"] if marker else ""
        )


def indented(page: str) -> list[str]:
    """Blocks that are blocks by their indentation, as far as they look like commands."""
    text = _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return [block for block in re.findall(r"\n\n((?: {4}.*\n)+)", text) if _A_COMMAND.search(block)]


def pages() -> list[str]:
    """Every Markdown page that the repository has."""
    listed = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return listed.stdout.split()


def followed() -> list[str]:
    """Pages with something to run here."""
    return [page for page in pages() if any(block.here for block in blocks(page))]
