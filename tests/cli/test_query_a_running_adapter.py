"""`capsign audit query` without an archive asks the adapter that a profile or variables mean."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from capsign_adapter.sign.tile_summaries import TileSummaries
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit.adapter_archive import AdapterArchive
from capsign_evidence.archive.scan import find
from capsign_evidence.archive.selection import Selection, select
from capsign_evidence.leaf import admin
from capsign_evidence.leaf_kinds import Act
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from capsign_wire.types.v1 import failures_pb2
from support.adapter_rig import APP, AUDITOR, AdapterRig
from support.replica import RunningReplica


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def replica(tmp_path):
    """What an agent refused by itself, of a log with more than a tile."""
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    store = running.rig.store
    with running.as_(APP) as channel:
        record = evidence_pb2.AuditRecord(
            sequence=1,
            time_ms=1,
            kind=evidence_pb2.AUDIT_KIND_OUTCOME,
            outcome=failures_pb2.OUTCOME_REFUSED,
            reason=failures_pb2.REASON_RATE_LIMITED,
            grant="orders-jwt",
        )
        batch = evidence_pb2.AuditBatch(boot_id=b"a" * 16, records=[record])
        request = evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString())
        store.append([admin(1, bytes(32), Act.LOG_OPENED, APP, "log", 0)] * 300, 1)
        evidence_pb2_grpc.EvidenceServiceStub(channel).SubmitAudit(request, timeout=10)
    yield running
    running.stop()


@pytest.fixture
def query(replica, tmp_path, capsys, monkeypatch):
    """Runs it; exit code, and the events."""
    certificate, key = replica.authority.issue(AUDITOR).write(tmp_path, "auditor")
    given = {
        "ADAPTER": replica.address,
        "CA": tmp_path / "ca.pem",
        "CERT": certificate,
        "KEY": key,
        "SERVER_NAME": "localhost",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"CAPSIGN_{name}", str(value))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", "query", *arguments, "-o", "json"])
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()], said.err

    return run


def test_one_command_finds_what_a_pod_refused(query):
    found, said = query("--key", "demo/orders", "--stream", "agent", "--outcome", "refused")
    assert [(one["grant"], one["reason"]) for one in found] == [("orders-jwt", "RATE_LIMITED")]
    assert "lacks" not in said


def test_entries_of_all_tiles_are_read(query, replica):
    found, _ = query("--act", "log-opened")
    assert len(found) == 300


class Counting(AdapterArchive):
    """Notes which tiles of entries are read."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self.read: set[int] = set()

    def entries(self, first: int, count: int) -> Iterator[bytes]:
        for at, entry in enumerate(super().entries(first, count), first):
            self.read.add(at // 256)
            yield entry


class Unimplemented(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNIMPLEMENTED


class Before:
    """A channel to an adapter of a release that has no summaries to give."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def unary_unary(self, method: str, *arguments: Any, **more: Any) -> Any:
        def refuse(*_: Any, **__: Any) -> None:
            raise Unimplemented

        given = self._channel.unary_unary(method, *arguments, **more)
        return refuse if method.endswith("/GetSummaries") else given


def test_only_tiles_that_may_have_it_are_read(replica):
    """Somebody in a hurry, with a large log behind the adapter."""
    store = replica.rig.store
    store.append([admin(1, bytes(32), Act.LOG_OPENED, APP, "log", 0)] * 700, 1)
    while TileSummaries(store).step():
        pass
    selection = Selection(select({"workload": [APP]}), streams=frozenset({"agent"}))
    with replica.as_(AUDITOR) as channel:
        archive, before = Counting(channel), Counting(Before(channel))
        (found,) = find(archive, selection)
        assert list(find(before, selection)) == [found]
    assert found.reason == "RATE_LIMITED"
    assert found.index // 256 in archive.read
    assert archive.read < before.read == set(range(store.control().tree_size // 256 + 1))
