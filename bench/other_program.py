"""Another program that measures the same cells, run between our rounds so that what the machine
does meanwhile falls on both.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import fields

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
        done = subprocess.run(self._command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"`{shlex.join(self._command)}` ended with {done.returncode}")
        try:
            told = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
            return [
                Result(**{name: value for name, value in one.items() if name in TAKEN})
                for one in told
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise SystemExit(
                f"`{shlex.join(self._command)}` printed no cells as --json does: {error}"
            ) from None
