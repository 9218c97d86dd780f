"""A whole replica whose oldest leaves are in cold files: it moves them by itself, answers for them
as before, and does not start without them.
"""

from __future__ import annotations

import os
import shutil
import threading

import pytest
from capsign_adapter.config import Listen, LogConfig
from capsign_adapter.log_config import Retention, Witnesses
from capsign_adapter.sign import retention as moving
from capsign_adapter.store.cold_reads import ColdReads
from capsign_evidence.archive import open_archive
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.note import VerifierKey
from capsign_evidence.receipt import verify_receipt
from capsign_evidence.tiles import TileName, open_bundle
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc, inventory_pb2, inventory_pb2_grpc
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from support.adapter_rig import APP, AUDITOR, AdapterRig
from support.replica import RunningReplica
from support.signed_at import Asking


def started(
    folder, rig: AdapterRig, retention: Retention | None, witnesses: Witnesses | None = None
) -> RunningReplica:
    log = LogConfig(
        origin="capsign.test/log",
        checkpoint_every_ms=10,
        retention=retention,
        witnesses=witnesses,
    )
    listen = Listen(address="127.0.0.1:0", streams=16)
    return RunningReplica(folder, rig, listen=listen, log=log)


def _eventually(question) -> bool:
    waiting = threading.Event()
    return any(question() or waiting.wait(0.02) for _ in range(1000))


def test_a_replica_moves_leaves_and_answers_for_them(tmp_path):
    rig = AdapterRig(tmp_path / "store")
    rig.store.append([b"entry %d" % number for number in range(300)], 1)  # long ago
    early = rig.checkpoints.current(1)
    rig.store.append([b"entry %d" % number for number in range(300, 700)], 1)
    entries = rig.entries()
    rig.checkpoints.current(1)
    cold = Retention(directory=tmp_path / "cold", after_days=1, unwitnessed=True)
    replica = started(tmp_path, rig, cold)
    try:
        assert _eventually(lambda: replica.rig.store.moved_leaves() >= 512)
        with replica.as_(AUDITOR) as channel:
            stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
            answer = stub.GetReceipt(pb.GetReceiptRequest(leaf_index=1), timeout=10)
            tile = stub.GetTile(pb.GetTileRequest(), timeout=10).tile
            bundle = stub.GetEntries(pb.GetEntriesRequest(index=1), timeout=10).entries
        key = VerifierKey.parse(answer.verifier_key)
        assert verify_receipt(answer.receipt, entries[1], key)[0] == 1
        assert tile == b"".join(map(leaf_hash, entries[:256]))
        assert open_bundle(bundle) == entries[256:512]
        with open_archive(f"{tmp_path}/store/store.db,{tmp_path}/cold") as archive:
            assert list(archive.entries(0, 700)) == entries[:700]
    finally:
        replica.stop()
    # What it showed last before a long pause is within what others moved meanwhile, and no tile
    # ends there: that it is of this log can only be seen with the files.
    (tmp_path / "store" / "store.db.checkpoint").write_bytes(early.note)
    started(tmp_path, rig.beside(), cold).stop()
    with pytest.raises(SettingsError, match="are in cold files"):
        started(tmp_path, rig.beside(), None)
    shutil.rmtree(tmp_path / "cold")
    with pytest.raises(SettingsError, match="are not in"):
        started(tmp_path, rig.beside(), cold)


def test_a_volume_that_hangs_keeps_nobody_from_signing(tmp_path):
    """The read of a file whose other end nobody opens does what one of a hung network volume
    does. Twice as many ask as there are places for calls.
    """
    rig = AdapterRig(tmp_path / "store")
    rig.store.append([b"entry %d" % number for number in range(300)], 1)
    first, shown = rig.entries()[:1], rig.checkpoints.current(1)
    cold = tmp_path / "cold"
    moving.Retention(rig.store, cold, 1, lambda: shown, lambda: bytes(32), lambda: 10).step()
    replica = started(tmp_path, rig, Retention(directory=cold, after_days=1, unwitnessed=True))
    file = cold / TileName(0, 0).entries_path
    try:
        entries = file.read_bytes()
        rig.store.use_cold_files(cold, ColdReads(deadline_s=0.5))
        file.unlink()
        os.mkfifo(file)
        with replica.as_(AUDITOR) as channel, replica.as_(APP) as of_app:
            app = Asking(of_app)
            stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
            asked = [
                stub.GetEntries.future(pb.GetEntriesRequest(index=0), timeout=30) for _ in range(32)
            ]
            assert app.sign(), "whoever asks for cold files waits, and nobody else"
            told = {FailureError.from_rpc(each.exception()).row.name for each in asked}
            assert told <= {"COLD_FILES_MISSING", "OVERLOADED"}
            assert "COLD_FILES_MISSING" in told
            with pytest.raises(FailureError, match="hang"):
                rig.store.entries(0, 1)
            os.close(os.open(file, os.O_WRONLY))
            file.unlink()
            file.write_bytes(entries)
            assert _eventually(lambda: _entries(rig) == first)
    finally:
        replica.stop()


def _entries(rig: AdapterRig) -> list[bytes]:
    try:
        return rig.store.entries(0, 1)
    except FailureError:
        return []


def test_a_directory_whose_volume_is_not_there_is_told(tmp_path):
    with pytest.raises(SettingsError, match="There is no directory"):
        started(
            tmp_path,
            AdapterRig(tmp_path / "store"),
            Retention(directory=tmp_path / "no" / "cold"),
        )


@pytest.mark.parametrize("witnesses", ["no section", "quorum none\n"])
def test_without_a_quorum_nothing_may_move_unless_the_configuration_says_so(tmp_path, witnesses):
    rig = AdapterRig(tmp_path / "store")
    section = None
    if witnesses != "no section":
        (tmp_path / "policy").write_text(witnesses)
        section = Witnesses(policy=tmp_path / "policy")
    cold = tmp_path / "cold"
    with pytest.raises(SettingsError, match="no witness has to cosign") as refused:
        started(tmp_path, rig, Retention(directory=cold), section)
    assert refused.value.key == "log.retention.unwitnessed"
    started(tmp_path, rig.beside(), Retention(directory=cold, after_days=0), section).stop()
    replica = started(tmp_path, rig.beside(), Retention(directory=cold, unwitnessed=True), section)
    try:
        with replica.as_(AUDITOR) as channel:
            stub = inventory_pb2_grpc.InventoryServiceStub(channel)
            answer = stub.ListDrift(inventory_pb2.ListDriftRequest(look=True), timeout=30)
        named = {(one.subject.split("/")[-1], one.aspect) for one in answer.differences}
        assert ("log.retention", "witnesses") in named
    finally:
        replica.stop()
