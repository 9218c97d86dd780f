"""The log at the listener for verifiers: what stock HTTP clients get of C2SP tlog-tiles, and who
gets entries.
"""

from __future__ import annotations

import gzip
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest
from capsign_adapter.config import Listen, LogConfig
from capsign_adapter.decide.peer import Peer
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.front.public_answers import Answer, Question
from capsign_adapter.front.public_server import FILES_AT_ONCE, FILES_PER_SECOND, PublicServer
from capsign_adapter.front.public_tls import Pair
from capsign_evidence.checkpoint import open_checkpoint
from capsign_evidence.merkle import leaf_hash
from capsign_evidence.note import VerifierKey
from capsign_evidence.tiles import open_batch_file, open_bundle
from capsign_wire import addresses
from capsign_wire.adapter.v1 import evidence_pb2, evidence_pb2_grpc
from support.adapter_rig import APP, AUDITOR, AdapterRig
from support.ca import Authority
from support.replica import RunningReplica


@dataclass
class Said:
    """What the listener answered."""

    status: int
    headers: Message
    body: bytes


class Reader:
    """An HTTP client, with the certificate of somebody or with none."""

    def __init__(self, port: int, authority: Authority, folder: Path, who: str = "") -> None:
        self._url = f"https://localhost:{port}"
        self._tls = ssl.create_default_context(cadata=authority.certificate.decode())
        if who:
            files = authority.issue(who).write(folder, who.replace("/", "_"))
            self._tls.load_cert_chain(*files)

    @classmethod
    def of(cls, replica: RunningReplica, who: str = "") -> Reader:
        """Of a replica's listener."""
        return cls(replica.replica.public_port, replica.authority, replica.directory, who)

    def get(self, path: str, **headers: str) -> Said:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self._url + path, headers=named)  # noqa: S310 - https
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=10) as answer:  # noqa: S310
                return Said(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Said(error.code, error.headers, error.read())


@pytest.fixture
def started(tmp_path):
    """Starts a replica that serves so much of the log, with 300 leaves and a batch of an agent."""
    running: list[RunningReplica] = []

    def start(public: str = "readers") -> RunningReplica:
        listen = Listen(address="127.0.0.1:0", public_address="127.0.0.1:0", streams=16)
        log = LogConfig(origin="capsign.test/log", public=public, checkpoint_every_ms=3_600_000)
        rig = AdapterRig(tmp_path / "store")
        replica = RunningReplica(tmp_path, rig, listen=listen, log=log)
        running.append(replica)
        with replica.as_(APP) as channel:
            record = evidence_pb2.AuditRecord(
                sequence=1, time_ms=1, kind=evidence_pb2.AUDIT_KIND_OPEN
            )
            batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=[record])
            request = evidence_pb2.SubmitAuditRequest(batch=batch.SerializeToString())
            evidence_pb2_grpc.EvidenceServiceStub(channel).SubmitAudit(request, timeout=10)
        size = rig.store.control().tree_size
        rig.store.append([b"entry %d" % number for number in range(300 - size)], 1)
        rig.checkpoints.current(1)
        return replica

    yield start
    for replica in running:
        replica.stop()


def test_a_stranger_gets_checkpoint_and_hashes(started):
    replica = started()
    stranger = Reader.of(replica)
    said = stranger.get("/checkpoint")
    assert said.status == 200
    assert said.headers["Cache-Control"] == "no-store"
    assert said.headers["Content-Type"] == "text/plain; charset=utf-8"
    head = open_checkpoint(said.body, VerifierKey.parse(replica.replica.verifier_key))
    assert head.size == 300
    full = stranger.get("/tile/0/000")
    assert full.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert full.headers["Content-Type"] == "application/octet-stream"
    assert full.body == b"".join(leaf_hash(one) for one in replica.rig.store.entries(0, 256))
    assert len(stranger.get("/tile/0/001.p/44").body) == 44 * 32
    assert len(stranger.get("/tile/0/001.p/7").body) == 7 * 32
    assert len(stranger.get("/tile/1/000.p/1").body) == 32
    again = stranger.get("/tile/0/000", If_None_Match=full.headers["ETag"])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/tile/0/001",
        "/tile/0/001.p/45",
        "/tile/0/002.p/1",
        "/tile/1/000.p/2",
        "/tile/2/000.p/1",
        "/tile/00/000",
        "/tile/0/x000/000",
        "/tile/0/0",
        "/tile/0/000.p/256",
        "/tile/0/000.p/0",
        "/tile/64/000",
        "/tile/entries/",
        "/tile/0/../0/000",
    ],
)
def test_what_there_is_not_and_what_is_no_path(started, path):
    assert Reader.of(started("everything")).get(path).status == 404


def test_entries_and_batches_are_for_readers(started):
    """They name workloads."""
    replica = started()
    for refused in (Reader.of(replica), Reader.of(replica, APP)):
        assert refused.get("/tile/entries/000").status == 403
        assert refused.get("/capsign/batches/000").status == 403
        assert refused.get("/tile/0/000").status == 200
    auditor = Reader.of(replica, AUDITOR)
    said = auditor.get("/tile/entries/001.p/44")
    assert said.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert open_bundle(said.body) == replica.rig.store.entries(256, 44)
    packed = auditor.get("/tile/entries/001.p/44", Accept_Encoding="gzip, identity")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["ETag"] != said.headers["ETag"]
    assert gzip.decompress(packed.body) == said.body
    [(index, batch)] = open_batch_file(auditor.get("/capsign/batches/000").body)
    [(known, _, stored)] = replica.rig.store.audit_batches()
    assert (index, batch) == (known, stored)
    assert auditor.get("/capsign/batches/001.p/44").status == 404


def test_what_is_served_is_a_setting(started):
    stranger = Reader.of(started("everything"))
    said = stranger.get("/tile/entries/000")
    assert said.status == 200
    assert said.headers["Cache-Control"].startswith("public")


def test_hashes_alone(started):
    replica = started("hashes")
    assert Reader.of(replica).get("/tile/0/000").status == 200
    assert Reader.of(replica, AUDITOR).get("/tile/entries/000").status == 403


def test_nothing(started):
    assert Reader.of(started("off")).get("/checkpoint").status == 404


def test_nothing_beyond_the_last_checkpoint_is_served(started):
    """Whoever follows the log by its tiles sees nothing that is not signed for."""
    replica = started("everything")
    replica.rig.store.append([b"later"], 1)
    stranger = Reader.of(replica)
    assert stranger.get("/tile/0/001.p/45").status == 404
    assert stranger.get("/tile/entries/001.p/45").status == 404


class Asked:
    """The log's routes, of whom somebody is a reader by his name."""

    def serves(self, path: str) -> bool:
        return True

    def reader(self, peer: Peer | None) -> bool:
        return peer is not None and peer.spiffe_id == AUDITOR

    def answer(self, question: Question) -> Answer:
        return Answer(200, b"file", {"ETag": '"e"'})


def test_strangers_read_the_store_at_a_bounded_rate(tmp_path):
    """All of them together; who has a role and a certificate has a rate of its own."""
    authority, now_ms = Authority(), [0]
    server = authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
    pair = Pair(server.certificate, server.private_key, authority.certificate)
    rates = Buckets(lambda: now_ms[0])
    rates.take("", "files", FILES_PER_SECOND, FILES_AT_ONCE, FILES_AT_ONCE - 2)
    address = addresses.listener("127.0.0.1:0")
    listener = PublicServer(address, lambda: pair, None, rates, log=Asked())
    listener.start()
    try:
        stranger = Reader(listener.port, authority, tmp_path)
        assert [stranger.get("/tile/0/000").status for _ in range(4)] == [200, 200, 429, 429]
        assert int(stranger.get("/tile/0/000").headers["Retry-After"]) >= 1
        assert Reader(listener.port, authority, tmp_path, AUDITOR).get("/x").status == 200
        now_ms[0] = 1000
        assert stranger.get("/tile/0/000").status == 200
    finally:
        listener.stop()
