"""For tests that attack a real deployment: a deployment in a short path, and what must be true of
it afterwards.
"""

from __future__ import annotations

import base64
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from capsign_adapter.model.lifecycle import IntentState
from capsign_adapter.store.open import open_store
from capsign_adapter.store.stored_result import signatures_of
from capsign_evidence import merkle
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire import sqlite_url
from capsign_wire.failures import FailureError
from support.dev import Dev

MIB = 1024 * 1024


@contextmanager
def deployment(
    *, workers: int = 1, arguments: tuple[str, ...] = (), within: str | None = None
) -> Iterator[Dev]:
    """A deployment whose sockets have short paths, `within` a directory. Afterwards, whatever was
    done: its log adds up, and it told no secret.
    """
    root = Path(tempfile.mkdtemp(prefix="cs-", dir=within))
    try:
        dev = Dev(root / "d", workers=workers, arguments=arguments)
        try:
            yield dev
            assert_consistent(dev)
            assert_nothing_told(dev)
        finally:
            dev.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def failure_of(call: Any, *arguments: Any, timeout: float = 20.0, **extra: Any) -> FailureError:
    """The typed failure of an RPC. A bare gRPC status, and a code that is not the reason's own,
    fail the test.
    """
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=timeout, **extra)
    failure = FailureError.from_rpc(caught.value)
    assert failure is not None, f"not in our terms: {caught.value.code()} {caught.value.details()}"
    assert caught.value.code() == failure.row.status
    return failure


def bare_status(call: Any, *arguments: Any, timeout: float = 20.0) -> grpc.StatusCode:
    """The status of an RPC that gRPC itself ends before any code of ours has seen it."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=timeout)
    code: grpc.StatusCode = caught.value.code()
    return code


def rss(process: psutil.Process) -> float:
    """Resident memory, MiB."""
    return process.memory_info().rss / MIB


def forget_peak(process: psutil.Process) -> None:
    """Count `peak` from now on: proc(5), clear_refs."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak(process: psutil.Process) -> float:
    """The most memory that was resident at once since `forget_peak`, MiB."""
    (line,) = [
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1024


def secrets_of(dev: Dev) -> dict[str, bytes]:
    """What nobody may ever read in a log: PINs, and the private part of each key file."""
    found = {
        name: Path(dev.about["token"][name]).read_bytes().strip()
        for name in ("pin_file", "so_pin_file")
    }
    for path in dev.directory.glob("pki/*.key"):
        lines = [
            line for line in path.read_bytes().splitlines() if line and not line.startswith(b"-")
        ]
        found |= {
            f"{path.name} line {number}": line
            for number, line in enumerate(lines)
            if len(line) >= 40
        }
    assert len(found) > 4
    return found


def spelt(secret: bytes) -> list[bytes]:
    """The ways in which a log could spell it."""
    return [
        secret,
        secret.hex().encode(),
        base64.b64encode(secret).rstrip(b"="),
        base64.urlsafe_b64encode(secret).rstrip(b"="),
    ]


def told_by(dev: Dev) -> bytes:
    """Everything that its processes have printed."""
    return b"".join(path.read_bytes() for path in sorted((dev.directory / "logs").iterdir()))


def assert_nothing_told(dev: Dev, *more: bytes, text: bytes | None = None) -> None:
    """Neither the logs nor `text` hold a secret of the deployment, nor `more`."""
    seen = told_by(dev) if text is None else text
    for name, secret in [
        *secrets_of(dev).items(),
        *((f"canary {number}", one) for number, one in enumerate(more)),
    ]:
        assert not any(way in seen for way in spelt(secret)), f"{name} was printed"


def assert_consistent(dev: Dev) -> None:
    """Ledger and log agree, one leaf for each signature, and the tree is that of its entries (I5,
    I8).
    """
    path = Path(sqlite_url.path_of(dev.about["store"]))
    # Size and frontier from one row: an agent that renews its handles appends meanwhile.
    ((size, frontier),) = _rows(path, "SELECT tree_size, frontier FROM control")
    entries: list[Any]
    store, entries = open_store(dev.about["store"]), []
    try:
        while len(entries) < size:
            entries += store.entries(len(entries), 4096)
    finally:
        store.close()
    del entries[size:]
    tree = merkle.Frontier(0, ())
    for start in range(0, size, 4096):
        tree = tree.append([merkle.leaf_hash(entry) for entry in entries[start : start + 4096]])[0]
    assert tree.root() == merkle.Frontier.decode(frontier).root()
    signed: dict[tuple[str, bytes], int] = {}
    for index, entry in enumerate(map(decode, entries)):
        if isinstance(entry, Signed):
            key = (entry.group.workload, entry.intent_id)
            assert key not in signed, "one intent, two leaves"
            signed[key] = index
    done = {}
    query = (
        "SELECT spiffe_id, intent_id, leaf_index, result FROM intents JOIN workloads ON "
        "workloads.id = workload_id WHERE state ="
    )
    for workload, intent, index, result in _rows(path, f"{query} {int(IntentState.DONE)}"):
        assert len(signatures_of(result)) == 1
        done[workload, intent] = index
    assert signed == done


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
