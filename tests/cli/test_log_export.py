"""`capsign log export`: from a running adapter over real mTLS, and from a copy of its store."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from capsign_adapter.sign.retention import Retention
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_evidence.archive import open_archive
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from support.adapter_rig import APP, AUDITOR, AdapterRig
from support.replica import RunningReplica


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def replica(tmp_path):
    running = RunningReplica(tmp_path, AdapterRig(tmp_path / "store"))
    with running.as_(APP) as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        for boot in (b"a" * 16, b"b" * 16):
            record = evidence_pb2.AuditRecord(
                sequence=1, time_ms=1, kind=evidence_pb2.AUDIT_KIND_OPEN
            )
            batch = evidence_pb2.AuditBatch(boot_id=boot, records=[record])
            request = evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString())
            stub.SubmitAudit(request, timeout=10)
            running.rig.store.append([b"entry %d" % number for number in range(300)], 1)
    yield running
    running.stop()


@pytest.fixture
def export(replica, tmp_path, capsys):
    """Runs it; exit code, and what it said."""
    certificate, key = replica.authority.issue(AUDITOR).write(tmp_path, "auditor")
    ca = tmp_path / "ca.pem"
    reached = ["--adapter", replica.address, "--ca", ca, "--cert", certificate, "--key", key]
    log_key = replica.replica.verifier_key

    def run(*arguments, log_key=log_key, adapter: bool = True):
        told = [*arguments, "--log-key", log_key, "-o", "json"]
        with pytest.raises(SystemExit) as ended:
            cli.main([str(one) for one in ("log", "export", *told, *(reached if adapter else ()))])
        said = capsys.readouterr()
        return ended.value.code, json.loads(said.out or said.err.splitlines()[-1])

    return run


def test_from_an_adapter_and_on_from_there(replica, export, tmp_path):
    code, told = export(tmp_path / "log", "--server-name", "localhost")
    assert code == 0
    size = told["leaves"]
    assert (told["new"], told["origin"]) == (size, "capsign.test/log")
    with open_archive(tmp_path / "log") as copied:
        assert list(copied.entries(0, size)) == replica.rig.store.entries(0, size)
        assert list(copied.batches(0)) == replica.rig.store.audit_batches()
    replica.rig.store.append([b"later"] * 10, 1)
    code, told = export(tmp_path / "log", "--server-name", "localhost")
    assert (code, told["new"], told["leaves"]) == (0, 10, size + 10)


def test_from_a_copy_of_the_store(replica, export, tmp_path):
    replica.rig.checkpoints.current(1)  # as a checkpoint is made each second
    store = tmp_path / "store" / "store.db"
    code, told = export(tmp_path / "log", "--archive", store, adapter=False)
    assert (code, told["leaves"]) == (0, replica.rig.store.control().tree_size)
    code, again = export(tmp_path / "other", "--archive", tmp_path / "log", adapter=False)
    assert (code, again["root"]) == (0, told["root"])


def test_a_log_of_another_key_is_not_copied(replica, export, tmp_path):
    stranger = "capsign.test/log+172dd09e+AZDmYYjQCKgOlKVDMkk9++F+hyr9mnwZzD2oQmtUkFJG"
    code, told = export(tmp_path / "log", "--server-name", "localhost", log_key=stranger)
    assert code == 1
    assert told["error"]["reason"] == "CHECKPOINT_INVALID"
    assert not (tmp_path / "log").exists()


def test_a_store_is_verified_with_its_cold_files(replica, tmp_path, capsys):
    """`capsign audit verify` over both, as one; and a cold file that was changed is found."""
    store, cold = replica.rig.store, tmp_path / "cold"
    store.use_cold_files(cold)
    retention = Retention(
        store,
        cold,
        1,
        lambda: replica.rig.checkpoints.current(1),
        lambda: bytes(32),
        lambda: 1 << 50,
    )
    while retention.step():
        pass
    replica.rig.checkpoints.current(1)

    def verify():
        place = f"{tmp_path / 'store' / 'store.db'},{cold}"
        key = replica.replica.verifier_key
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", "verify", place, "--log-key", key, "-o", "json"])
        said = capsys.readouterr()
        return ended.value.code, said.out + said.err

    code, told = verify()
    assert code == 0, told
    for place, warned in (
        (f"{tmp_path}/store/store.db", True),
        (f"{tmp_path}/store/store.db,{cold}", False),
    ):
        with suppress(SystemExit):
            cli.main(["audit", "query", place, "-o", "json"])
        assert ("after a comma: ARCHIVE,DIRECTORY" in capsys.readouterr().err) is warned
    file = cold / "tile" / "entries" / "000"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    code, told = verify()
    assert code == 1, told
