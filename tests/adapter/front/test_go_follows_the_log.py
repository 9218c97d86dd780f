"""Go's checksum database (golang.org/x/mod/sumdb) against a live log: 1,000 receipts, its
checkpoint and all its tiles, by HTTPS and as exported files; and what is false is not believed.
"""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from capsign_adapter.config import Listen, LogConfig
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.copying import copy_log
from capsign_evidence.archive.tile_files import TileFiles
from capsign_evidence.checkpoint import TreeHead
from capsign_evidence.note import parse_note
from capsign_evidence.proofs import TreeReader
from capsign_evidence.receipt import Receipt
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc
from support import go_log_verifier
from support.adapter_rig import AUDITOR, AdapterRig
from support.log_model import MemoryLog
from support.replica import RunningReplica

pytestmark = pytest.mark.system

RECEIPTS = 1000


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """The program of others; what it says of a directory, or of a URL."""
    binary = go_log_verifier.build(tmp_path_factory.mktemp("go"))
    return lambda directory, url="": go_log_verifier.run(binary, directory, url)


@pytest.fixture(scope="module")
def replica(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replica")
    listen = Listen(address="127.0.0.1:0", public_address="127.0.0.1:0", streams=16)
    log = LogConfig(origin="capsign.test/log", checkpoint_every_ms=3_600_000)
    running = RunningReplica(folder, AdapterRig(folder / "store"), listen=listen, log=log)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def claims(replica, tmp_path_factory):
    """A directory with what is claimed: receipts of checkpoints along the way, consistency of each
    with the last, and what a client of the listener needs.
    """
    folder = tmp_path_factory.mktemp("claims")
    receipts, heads = [], []
    with replica.as_(AUDITOR) as channel:
        stub = evidence_pb2_grpc.EvidenceServiceStub(channel)
        for _ in range(10):
            items = replica.rig.sign(*(b"m%d" % number for number in range(RECEIPTS // 10)))
            for item in reversed(items):
                request = pb.GetReceiptRequest(leaf_index=item.leaf_index)
                receipts.append(stub.GetReceipt(request, timeout=10).receipt)
            heads.append(TreeHead.parse(parse_note(Receipt.parse(receipts[-1]).checkpoint).text))
        last = heads[-1]
        consistency = [
            {
                "old": head.size,
                "new": last.size,
                "old_root": base64.b64encode(head.root).decode(),
                "new_root": base64.b64encode(last.root).decode(),
                "proof": [
                    base64.b64encode(one).decode()
                    for one in stub.GetConsistencyProof(
                        pb.GetConsistencyProofRequest(old_size=head.size, new_size=last.size),
                        timeout=10,
                    ).hashes
                ],
            }
            for head in heads
        ]
    whole = {
        "verifier_key": replica.replica.verifier_key,
        "inclusion": [],
        "consistency": consistency,
        "receipts": [one.decode() for one in receipts],
    }
    (folder / "claims.json").write_text(json.dumps(whole))
    auditor = replica.authority.issue(AUDITOR)
    (folder / "ca.pem").write_bytes(replica.authority.certificate)
    (folder / "cert.pem").write_bytes(auditor.certificate)
    (folder / "key.pem").write_bytes(auditor.private_key)
    return folder


@pytest.fixture(scope="module")
def exported(replica, claims, tmp_path_factory):
    """The log as files, and the claims beside them."""
    folder = tmp_path_factory.mktemp("exported")
    with open_archive(replica.rig.url.removeprefix("sqlite://")) as archive:
        copy_log(archive, TileFiles(folder), archive.checkpoint())
    shutil.copy(claims / "claims.json", folder)
    return folder


@pytest.fixture
def copied(exported, tmp_path):
    """One that a test may change."""
    shutil.copytree(exported, tmp_path / "log")
    return tmp_path / "log"


def test_it_accepts_a_live_log_by_https(go, replica, claims):
    ran = go(claims, f"https://localhost:{replica.replica.public_port}")
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["receipts"], told["consistency"]) == (RECEIPTS, 10)
    assert told["entries"] == told["size"] == replica.rig.store.control().tree_size
    assert told["tiles"] >= told["size"] // 256


def test_it_accepts_the_same_log_as_files(go, exported):
    ran = go(exported)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["receipts"] == RECEIPTS


@pytest.mark.parametrize(
    "path", ["tile/0/000", "tile/0/002", "tile/1/000.p/*", "tile/entries/001", "checkpoint"]
)
def test_it_rejects_a_flipped_byte(go, copied, path):
    [file] = copied.glob(path)
    data = bytearray(file.read_bytes())
    data[30] ^= 1  # of the checkpoint: in its root
    file.write_bytes(data)
    assert go(copied).returncode == 1


def test_it_rejects_a_flipped_byte_of_a_receipt(go, copied):
    whole = json.loads((copied / "claims.json").read_text())
    head, _, rest = whole["receipts"][500].partition("\n\n")
    lines = head.split("\n")
    lines[3] = ("B" if lines[3][0] != "B" else "C") + lines[3][1:]
    whole["receipts"][500] = "\n".join(lines) + "\n\n" + rest
    (copied / "claims.json").write_text(json.dumps(whole))
    ran = go(copied)
    assert ran.returncode == 1
    assert "receipt" in ran.stderr


def test_it_rejects_a_truncated_log(go, copied, exported):
    """The checkpoint is an older one of this log, good by itself: what was promised since is
    missing.
    """
    whole = json.loads((copied / "claims.json").read_text())
    older = Receipt.parse(whole["receipts"][0].encode()).checkpoint
    size = TreeHead.parse(parse_note(older).text).size
    shutil.rmtree(copied)
    with open_archive(exported) as archive:
        copy_log(archive, TileFiles(copied), older)
    shutil.copy(exported / "claims.json", copied)
    ran = go(copied)
    assert ran.returncode == 1
    assert size < 1000
    whole["receipts"] = []
    whole["consistency"] = [one for one in whole["consistency"] if one["new"] <= size]
    (copied / "claims.json").write_text(json.dumps(whole))
    assert go(copied).returncode == 0, "by itself it is a log"


class Forked:
    """The log with another entry in it."""

    def __init__(self, archive) -> None:
        self._archive = archive

    def entries(self, first, count):
        for index, entry in enumerate(self._archive.entries(first, count), first):
            yield b"forged" if index == 700 else entry

    def batches(self, first_leaf, count):
        return self._archive.batches(first_leaf, count)

    def policy(self, digest):
        return self._archive.policy(digest)


def test_it_rejects_a_fork(go, replica, copied, exported):
    """The log's own key signed another tree of the same size: receipts and promises of the first
    do not hold in it.
    """
    with open_archive(exported) as archive:
        log = MemoryLog()
        log.append(list(Forked(archive).entries(0, archive.size)))
        root = TreeReader(log.hashes, log.size).root()
        note = replica.rig.checkpoints.keys.sign(log.size, root, 1_790_000_000)
        shutil.rmtree(copied)
        copy_log(Forked(archive), TileFiles(copied), note)
    shutil.copy(exported / "claims.json", copied)
    ran = go(copied)
    assert ran.returncode == 1
    assert "differ" in ran.stderr or "receipt" in ran.stderr
