"""Standard streams that are closed, for every command and process: no traceback, and no file of
ours in their place.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ("capsign_cli", "capsign_agent", "capsign_adapter", "capsign_injector")
COMMANDS = [
    *(f"{module} --help" for module in MODULES),
    *(f"{module} --version" for module in MODULES),
    "capsign_cli handles --socket /nowhere.sock --timeout 0.1",
    "capsign_cli sign -a ES256 -p jwt --socket /nowhere.sock --timeout 0.1",
    "capsign_cli keys list --dir /nowhere",
    "capsign_cli revoke everything --dir /nowhere",
    "capsign_cli completion bash",
    "capsign_cli dev status --dir /nowhere -o json",
    "capsign_cli no-such-command",
    "capsign_agent --config /nowhere.toml",
    "capsign_adapter --config /nowhere.toml",
    "capsign_injector --settings /nowhere.yaml",
]


@pytest.mark.parametrize("closed", [">&-", "<&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stream_ends_in_no_traceback(command, closed):
    line = f"exec {sys.executable} -m {command} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode in {0, 1, 2, 3, 4}


def test_an_answer_without_a_stream_for_it_is_told():
    line = f"exec {sys.executable} -m capsign_cli completion bash >&-"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "closed" in done.stderr or "could not be written" in done.stderr


def test_no_input_is_not_an_empty_one(tmp_path):
    """Nothing was there to be read: signing the empty message would be a signature that nobody
    asked for.
    """
    line = f"exec {sys.executable} -m capsign_cli sign -a ES256 -p jwt --socket {tmp_path}/s <&-"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "closed" in done.stderr) == (2, True), done.stderr


def test_what_is_opened_next_does_not_get_what_was_meant_for_a_stream(tmp_path):
    code = (
        "from capsign_wire import std_streams; std_streams.hold(answers=False);"
        f"f = open({str(tmp_path / 'store')!r}, 'w'); print('meant for standard output'); "
        f"import sys; sys.stdout.flush();"
        "sys.exit(0 if f.fileno() > 2 else 9)"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$CODE" >&- <&-'], env={"CODE": code}, check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "store").read_text() == ""
