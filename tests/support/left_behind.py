"""Everything that the processes of a deployment leave behind, and what its evidence is read as:
unpacked, for what is compressed hides from whoever looks for it in bytes.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import duckdb
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.events import described
from capsign_evidence.archive.reading import events
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.note import parse_note
from support.dev import Dev
from support.otlp_logs import grpc_receiver

_BLOCK = re.compile(rb'type="application/octet-stream" id="[a-z-]+">([A-Za-z0-9+/=]+)<')


def _until(done: Callable[[], bool], why: str, seconds: float) -> None:
    """Wait until something is so in another process, whose files tell: they announce nothing."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, why
        time.sleep(0.1)


class Places:
    """What is found where. `answers` are for whoever asks to add to."""

    def __init__(self, dev: Dev, received) -> None:
        self._dev, self._received = dev, received
        self._state = dev.directory / "state"
        self.answers: list[str] = []
        self._journal = b""
        self._witness = b""
        self._split_view = b""
        self._inventory = b""

    def keep_journal(self) -> None:
        """Keep what is in the agent's journal now, and what it remembers of the log: records are
        deleted once an adapter has them.
        """
        journal = self._state / "journal"
        for path in sorted(path for path in journal.rglob("*") if path.is_file()):
            if path.name.startswith("split-view-"):
                self._split_view += path.read_bytes()
            elif "witness" in path.relative_to(journal).parts:
                self._witness += path.read_bytes()
            else:
                self._journal += path.read_bytes()

    def keep_inventory(self) -> None:
        """Keep what the running adapter says of its keys and grants, as a page too."""
        page = self._dev.directory / "inventory.html"
        told = _capsign("inventory", "--dir", self._dev.directory, "--html", page)
        self._inventory = told + page.read_bytes()

    def until_remembered(self, seconds: float = 60.0) -> None:
        """Wait until the agent has seen the log and remembers it: it looks once a minute, and what
        others ask meanwhile may use up its share.
        """
        remembered = (self._state / "journal").rglob
        _until(
            lambda: any(remembered("witness/checkpoint")), "the agent has not seen the log", seconds
        )

    def until_split(self, seconds: float = 60.0) -> list[Path]:
        """Wait until the agent has seen two logs; the files that prove it."""
        kept = (self._state / "journal").rglob
        _until(lambda: any(kept("split-view-*.json")), "the agent saw no fork", seconds)
        return list(kept("split-view-*.json"))

    def until_covered(self, seconds: float = 60.0) -> None:
        """Wait until a checkpoint covers all entries, so that a copy of the log has them."""
        _until(self._covered, "no checkpoint covers the last entries", seconds)

    def _covered(self) -> bool:
        with open_archive(self._state / "capsign.sqlite") as archive:
            note = archive.checkpoint()
            return note is not None and TreeHead.parse(parse_note(note).text).size >= archive.size

    def contents(self) -> dict[str, bytes]:
        """By the name of a place. The adapter has ended."""
        directory = self._dev.directory
        with self._received.lock:
            spans = [str(one.span) + str(one.resource) for one in self._received.spans]
            metrics = str(self._received.metrics) + str(self._received.resources)
        store = {path for path in self._state.glob("capsign.sqlite*") if path.is_file()}
        return {
            "store": b"".join(path.read_bytes() for path in sorted(store)),
            "journal": self._journal,
            "witness": self._witness,
            "split view": self._split_view,
            "console": b"".join(path.read_bytes() for path in (directory / "logs").iterdir()),
            "traces": "\n".join(spans).encode(),
            "metrics": metrics.encode(),
            "answers": "\n".join(self.answers).encode(),
            "inventory": self._inventory,
            **self._evidence(),
        }

    def _evidence(self) -> dict[str, bytes]:
        """What people read of both streams, from a copy of the store and of it as files."""
        copy, log = self._dev.directory / "copy", self._dev.directory / "log"
        for folder in (copy, log):
            shutil.rmtree(folder, ignore_errors=True)
        copy.mkdir()
        for path in self._state.glob("capsign.sqlite*"):
            if not path.name.endswith(".lock"):
                shutil.copy(path, copy)
        store = copy / "capsign.sqlite"
        key = self._dev.about["log_key"]
        _capsign("log", "export", log, "--archive", store, "--log-key", key)
        with open_archive(store) as archive:
            batches = b"".join(data for _, _, data in archive.batches(0))
            told = "\n".join(str(described(one)) for one in events(archive)).encode()
        with open_archive(log) as archive:
            unpacked = b"".join(data for _, _, data in archive.batches(0))
        files = b"".join(path.read_bytes() for path in sorted(log.rglob("*")) if path.is_file())
        return {
            "batches": batches,
            "exports": told,
            "files": files + unpacked,
            "ocsf": _capsign("audit", "export", store, "--format", "ocsf-jsonl"),
            "otlp": _over_otlp(store),
            "parquet": _parquet(store, copy / "parquet"),
            "timeline": _timeline(log, copy / "timeline.html"),
        }


def _over_otlp(store: Path) -> bytes:
    with grpc_receiver() as (endpoint, received):
        _capsign("audit", "export", store, "--format", "ocsf-otlp", "--endpoint", endpoint)
        return "\n".join(map(str, received.records)).encode()


def _parquet(store: Path, to: Path) -> bytes:
    _capsign("audit", "export", store, "--format", "parquet", "--to", to)
    rows = duckdb.connect().read_parquet(str(to / "*.parquet")).fetchall()
    return "\n".join(map(str, rows)).encode()


def _timeline(log: Path, page: Path) -> bytes:
    """The page, and what its scripts unpack (RFC 1951)."""
    _capsign("audit", "timeline", log, "--html", page)
    text = page.read_bytes()
    blocks = _BLOCK.findall(text)
    assert blocks, "the page has its rows in another form: unpack that"
    return text + b"".join(zlib.decompress(base64.b64decode(one), -15) for one in blocks)


def _capsign(*arguments: object) -> bytes:
    command = [sys.executable, "-m", "capsign_cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
