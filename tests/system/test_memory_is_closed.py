"""Another process of the same user: in a container's image, in a shell that somebody got. It reads
nothing of ours.

Each program is caught while it reads its settings, which is before it has read any secret: from
there on it is closed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import thief, tracer

pytestmark = pytest.mark.system

NOBODY = 65534

PROGRAMS = {
    "adapter": ["-m", "capsign_adapter", "--config", "{settings}"],
    "adapter provision": ["-m", "capsign_adapter", "--config", "{settings}", "provision"],
    "adapter authority": ["-m", "capsign_adapter", "--config", "{settings}", "authority"],
    "adapter --check-config": ["-m", "capsign_adapter", "--config", "{settings}", "--check-config"],
    "agent": ["-m", "capsign_agent", "--config", "{settings}"],
    "agent --check-config": ["-m", "capsign_agent", "--config", "{settings}", "--check-config"],
    "injector": ["-m", "capsign_injector", "--settings", "{settings}"],
    "capsign dev up": [
        "-m",
        "capsign_cli",
        "dev",
        "up",
        "--dir",
        "{home}/dev",
        "--policy",
        "{settings}",
    ],
}


@pytest.fixture
def home(short_dir) -> Path:
    if os.geteuid():
        pytest.fail(
            "Processes are started as another user for this test: run it as root.", pytrace=False
        )
    os.chown(short_dir, NOBODY, NOBODY)
    return short_dir


@contextmanager
def reading(arguments: list[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of nobody's, that is reading its settings from a pipe and gets none."""
    pipe = home / "settings"
    os.mkfifo(pipe, 0o600)
    os.chown(pipe, NOBODY, NOBODY)
    words = [word.format(settings=pipe, home=home) for word in arguments]
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, *words],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd=home,
            stderr=said,
            stdout=said,
        )
    opened = os.open(pipe, os.O_WRONLY)  # returns when it has opened its end
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        os.close(opened)


def stolen_from(process: subprocess.Popen[bytes]) -> list[str]:
    """What another process of nobody's got at."""
    command = [sys.executable, thief.__file__, str(process.pid)]
    done = subprocess.run(
        command,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_the_thief_can_steal(home):
    """Where this fails the kernel closes everybody's memory, and the tests below say nothing."""
    with reading(["-c", "open('{settings}').read()"], home) as process:
        assert {"mem", "ptrace", "process_vm_readv"} <= set(stolen_from(process))


DAEMONS = {name: words for name, words in PROGRAMS.items() if not name.startswith("capsign ")}


@pytest.mark.parametrize("arguments", DAEMONS.values(), ids=DAEMONS)
def test_who_attached_while_it_was_loaded_learns_nothing(home, arguments):
    """A tracer that is there before the first line of ours stays attached whatever that line
    does.
    """
    words = [
        sys.executable,
        *(word.format(settings=home / "nowhere", home=home) for word in arguments),
    ]
    done = subprocess.run(
        [sys.executable, tracer.__file__, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "traces this one" in done.stderr
    assert "nowhere" not in done.stderr


@pytest.mark.parametrize("arguments", PROGRAMS.values(), ids=PROGRAMS)
def test_memory_descriptors_and_cores_are_closed(home, arguments):
    with reading(arguments, home) as process:
        assert stolen_from(process) == []
        process.send_signal(signal.SIGABRT)
        process.wait(30)
    assert process.returncode == -signal.SIGABRT
    assert not list(home.glob("core*"))
