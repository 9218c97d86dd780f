"""Ctrl-C while a long command reads: a sentence, the exit code of an interrupt, nothing half done,
and a terminal as it was.
"""

from __future__ import annotations

import os
import platform
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import pytest
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.copying import copy_log
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_evidence.note import VerifierKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.adapter_rig import OPERATOR, POLICY, AdapterRig
from support.evidence_at_rest import T0, signed
from support.replica import RunningReplica

KEY = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
LOG = VerifierKey("log.example/audit", KEY.public_key().public_bytes_raw())
LEAVES = 300
READ = {"x86_64": "0", "aarch64": "63"}[platform.machine()]
"""The number of read(2)."""
LAST_TILE = f"tile/entries/001.p/{LEAVES - 256}"

COMMANDS = {
    "query": ["query"],
    "query-csv": ["query", "-o", "csv"],
    "watch": ["watch", "--from-leaf", "0"],
    "timeline": ["timeline"],
    "page": ["timeline", "--html", "{out}"],
    "verify": ["verify", "--log-key", "{key}"],
    "reconcile": ["reconcile"],
    "export": ["export", "--format", "ocsf-jsonl", "--to", "{out}", "--cursor", "{out}.cursor"],
}


@pytest.fixture
def log(tmp_path):
    """A log in files, whose last entries lie on a volume that hangs; and where it does."""
    create_sqlite(tmp_path / "store.db")
    store = SqliteStore(tmp_path / "store.db")
    entries = [signed(number, T0) for number in range(LEAVES)]
    store.append(entries, T0)
    store.close()
    root = Frontier().append([leaf_hash(entry) for entry in entries])[0].root()
    files = TileFiles(tmp_path / "log")
    with open_archive(tmp_path / "store.db") as source:
        copy_log(source, files, sign_checkpoint(LEAVES, root, LOG, KEY.sign))
    hanging = tmp_path / "log" / LAST_TILE
    hanging.unlink()
    os.mkfifo(hanging)
    return tmp_path / "log", hanging


class OnTerminal:
    """A command on a terminal of its own, interrupted by Ctrl-C when the `with` ends."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "capsign_cli", *arguments]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""
        self.changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self._reader.join(60)
        os.close(self._ours)

    def until_it_reads(self) -> None:
        """Wait until it hangs in read(2): a signal on the way there interrupts nothing, and Python
        looks for it only when the read returns.
        """
        where = Path("/proc", str(self.process.pid), "syscall")
        while where.read_text().split()[0] != READ:
            assert self.process.poll() is None, self.shown
            threading.Event().wait(0.001)

    def until(self, text: str) -> None:
        """Wait until the terminal shows it."""
        with self.changed:
            assert self.changed.wait_for(lambda: text in self.shown, 60), self.shown

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # EIO: nobody has the other end any more
                return
            with self.changed:
                self.shown += data.decode(errors="replace")
                self.changed.notify_all()


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_ctrl_c_while_it_reads(log, tmp_path, arguments):
    directory, hanging = log
    out = tmp_path / "out"
    command, *options = (each.format(out=out, key=LOG.text()) for each in arguments)
    with OnTerminal(["audit", command, str(directory), *options]) as run:
        held = os.open(hanging, os.O_WRONLY)  # returns when the command opens it
        run.until_it_reads()
    os.close(held)
    assert run.process.returncode == 130, run.shown
    assert "INTERRUPTED. Ended by Ctrl-C." in run.shown
    assert "Traceback" not in run.shown
    left = out.read_bytes() if out.exists() else b""
    assert command == "export" or not out.exists(), "half a page"
    assert left[-1:] in {b"", b"\n"}, "half a line"


def test_ctrl_c_in_the_live_view_of_a_rollout(tmp_path):
    """The picture stays as it was, and the terminal has its cursor again."""
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store", POLICY))
    certificate, key = running.authority.issue(OPERATOR).write(tmp_path, "operator")
    at = ["--adapter", running.address, "--ca", str(tmp_path / "ca.pem"), "--cert"]
    at += [str(certificate), "--key", str(key), "--server-name", "localhost"]
    try:
        with OnTerminal(["rollout", "start", "demo/orders", *at]) as started:
            started.process.wait(60)
        with OnTerminal(["rollout", "get", "demo/orders", "-w", *at]) as run:
            run.until("verifiers fetch the new public keys")
    finally:
        running.stop()
    assert run.process.returncode == 130, run.shown
    assert "INTERRUPTED. Ended by Ctrl-C." in run.shown
    hides, shows = (run.shown.rfind(f"\x1b[?25{end}") for end in "lh")
    assert 0 <= hides < shows
