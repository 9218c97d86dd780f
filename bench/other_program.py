"""Another program that measures the same cells, run between our rounds so that what the machine
does meanwhile falls on both.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import fields
from typing import Any

from bench.cells import Result

TAKEN = frozenset(field.name for field in fields(Result))


class OtherProgram:
    """It prints a JSON object a line: at least `cell`, and of the fields of `Result` what it
    knows; others are ignored. What it writes to standard error is passed on.
    """

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)

    def round(self) -> list[Result]:
        """What one run of it gave. Ends the benchmark if it failed, or said something else."""
        try:
            return [
                Result(**{name: value for name, value in one.items() if name in TAKEN})
                for one in self.told()
            ]
        except TypeError as error:
            raise self._no_cells(error) from None

    def told(self) -> list[dict[str, Any]]:
        """The same as it was printed, whatever else is in it."""
        done = subprocess.run(self._command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"`{shlex.join(self._command)}` ended with {done.returncode}")
        try:
            told = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
            return [{**one, "cell": one["cell"]} for one in told]
        except (ValueError, TypeError, KeyError) as error:
            raise self._no_cells(error) from None

    def _no_cells(self, error: Exception) -> SystemExit:
        command = shlex.join(self._command)
        return SystemExit(f"`{command}` printed no cells as --json does: {error}")
