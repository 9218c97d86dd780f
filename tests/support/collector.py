"""OpenTelemetry's own collector, as `make collector` builds it, with what a test gives it to do."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLLECTOR = Path(os.environ.get("CAPSIGN_COLLECTOR", ROOT / "build/collector"))

needs_collector = pytest.mark.skipif(
    not COLLECTOR.is_file(),
    reason="`make collector` builds the collector; its protobufs are held elsewhere",
)


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port: int = chosen.getsockname()[1]
        return port


@contextmanager
def running(directory: Path, config: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The collector and the file of its standard output, once it is ready; ended at the end, when
    it writes what it still holds.
    """
    file, shown = directory / "collector.yaml", directory / "shown"
    file.write_text(config)
    with shown.open("w") as output:
        command = [COLLECTOR, f"--config=file:{file}"]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said: list[str] = []
        while not said or "Everything is ready" not in said[-1]:
            line = process.stderr.readline()
            assert line, "".join(said)
            said.append(line)
        yield process, shown
    finally:
        process.terminate()
        process.communicate(timeout=30)
