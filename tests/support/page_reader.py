"""Follows a page as it is written: each block in order, in a copy of the repository where nothing
runs yet.

A variable that a block exports is there in those that follow on the page. The Python blocks of a
page are one program, run where the first of them stands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.page_ports import PagePorts
from support.pages import ROOT, Block, blocks

PATIENCE_S = 120
SHELL = ["bash", "-euo", "pipefail", "-c"]


class Reader:
    """Somebody at a terminal in a fresh checkout."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self._ports = PagePorts()
        for entry in ROOT.iterdir():
            if entry.name not in {".git", ".demo", "build"} and not entry.name.startswith(".venv"):
                (checkout / entry.name).symlink_to(entry)
        self._lend_environment(checkout / ".venv")
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CAPSIGN_", "OTEL_", "GRPC_"))
        }
        self.environ = {**ours, "VIRTUAL_ENV": ""}

    @staticmethod
    def _lend_environment(venv: Path) -> None:
        """Ours, and good as it is: `make` must not install into it from a place that is gone after
        the test.
        """
        venv.mkdir()
        for entry in Path(sys.prefix).iterdir():
            if not entry.name.startswith("made-from-"):
                (venv / entry.name).symlink_to(entry)
        stamp = subprocess.run(
            ["make", "-s", "stamp"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        (venv / Path(stamp.stdout.strip()).name).touch()

    def follow(self, page: str, environ: dict[str, str]) -> dict[str, str]:
        """Do what the page says; returns the environment afterwards."""
        found = [block for block in blocks(page) if block.here]
        program = [block for block in found if block.language == "python"]
        for block in found:
            if block.language != "python":
                environ = self._shell(block, environ)
            elif block is program[0]:
                text = "".join(f"# {one.at}\n{one.text}" for one in program)
                self._run(block, [sys.executable, "-c", text], environ)
        return environ

    def _shell(self, block: Block, environ: dict[str, str]) -> dict[str, str]:
        kept = self.checkout / ".environ"
        self._run(block, [*SHELL, f"{self._ports.moved(block.text)}\nenv -0 > {kept}"], environ)
        pairs = (pair.split("=", 1) for pair in kept.read_text().split("\0") if "=" in pair)
        return {name: value for name, value in pairs if name not in {"_", "SHLVL"}}

    def _run(self, block: Block, command: list[str], environ: dict[str, str]) -> None:
        output = self.checkout / ".output"
        with output.open("w") as file:  # not a pipe: what a block leaves running would hold it open
            done = subprocess.run(
                command,
                cwd=self.checkout,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                timeout=PATIENCE_S,
            )
        assert done.returncode == 0, f"{block.at}\n{block.text}\n{output.read_text()[-4000:]}"
