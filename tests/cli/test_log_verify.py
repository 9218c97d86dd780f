"""`capsign log verify` against a log that lies, over real mTLS: what it takes is right, and what it
is shown is kept.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.dev.ca import SERVER_NAME, DevelopmentCa
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.cosignature import COSIGNATURE_ED25519, CosignerKey, cosign
from capsign_evidence.note import SignatureLine, VerifierKey, add_lines, parse_note
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from capsign_wire.adapter.v1 import evidence_pb2_grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pymerkle import InmemoryTree

KEY = Ed25519PrivateKey.generate()
VERIFIER = VerifierKey("capsign.test/log", KEY.public_key().public_bytes_raw())
ENTRIES = [b"entry %d" % number for number in range(600)]


def root_of(entries):
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    return tree.get_root() if entries else hashlib.sha256().digest()


def checkpoint(entries):
    return sign_checkpoint(len(entries), root_of(entries), VERIFIER, KEY.sign)


class Log(evidence_pb2_grpc.EvidenceServiceServicer):
    """Serves what a test puts into it, whether it adds up or not."""

    def __init__(self):
        self.show(ENTRIES)

    def show(self, entries, note=None):
        self.entries = list(entries)
        self.note = checkpoint(entries) if note is None else note
        self.bundle = None
        self.meanwhile = lambda: None

    def GetCheckpoint(self, request, context):
        return pb.GetCheckpointResponse(checkpoint=self.note, verifier_key="another+00000000+key")

    def GetEntries(self, request, context):
        self.meanwhile()
        if self.bundle is not None:
            return pb.GetEntriesResponse(entries=self.bundle)
        first = request.index * 256
        found = self.entries[first : first + (request.width or 256)]
        return pb.GetEntriesResponse(
            entries=b"".join(struct.pack(">H", len(entry)) + entry for entry in found)
        )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pki")
    ca = DevelopmentCa(directory / "pki")
    server, auditor = (
        ca.issue("adapter", "/adapter", server=True),
        ca.issue("auditor", "/auditor/dev"),
    )
    own = [(server.private_key.read_bytes(), server.certificate.read_bytes())]
    credentials = grpc.ssl_server_credentials(
        own, ca.certificate_file.read_bytes(), require_client_auth=True
    )
    log = Log()  # type: ignore[abstract] # nothing else is asked
    running = grpc.server(ThreadPoolExecutor(2))
    evidence_pb2_grpc.add_EvidenceServiceServicer_to_server(log, running)
    port = running.add_secure_port("127.0.0.1:0", credentials)
    running.start()
    where = [
        "--adapter",
        f"127.0.0.1:{port}",
        "--server-name",
        SERVER_NAME,
        "--ca",
        str(ca.certificate_file),
    ]
    yield (
        log,
        [
            *where,
            "--cert",
            str(auditor.certificate),
            "--key",
            str(auditor.private_key),
            "--log-key",
            VERIFIER.text(),
        ],
    )
    running.stop(None).wait()


@pytest.fixture
def log(served):
    served[0].show(ENTRIES)
    return served[0]


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def verify(served, capsys):
    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as ended:
            cli.main(["log", "verify", *served[1], *map(str, arguments), "-o", "json"])
        told = capsys.readouterr()
        assert ended.value.code == code, told
        return json.loads(told.out) if code == 0 else json.loads(told.err)["error"]

    return run


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 600])
def test_a_log_that_adds_up(log, verify, size):
    log.show(ENTRIES[:size])
    answer = verify()
    assert (answer["leaves"], answer["root"]) == (size, root_of(ENTRIES[:size]).hex())


def test_a_policy_says_which_witnesses_must_have_cosigned(log, verify, tmp_path):
    secret = Ed25519PrivateKey.from_private_bytes(bytes(32))
    witness = CosignerKey("w.test", COSIGNATURE_ED25519, secret.public_key().public_bytes_raw())
    policy = tmp_path / "policy"
    policy.write_text(f"witness w {witness.text()}\nquorum w\n")
    plain = checkpoint(ENTRIES)
    refused = verify("--policy", policy, code=1)
    assert refused["reason"] == "CHECKPOINT_INVALID"
    assert "w" in refused["message"]
    text = parse_note(plain).text
    log.show(ENTRIES, add_lines(plain, [cosign(text, witness, 1_800_000_000, secret.sign)]))
    assert verify("--policy", policy)["witnesses"] == ["w"]
    log.show(ENTRIES, plain + SignatureLine("w.test", witness.key_id, bytes(72)).text().encode())
    assert verify("--policy", policy, code=1)["reason"] == "CHECKPOINT_INVALID"
    policy.write_text("quorum\n")
    assert verify("--policy", policy, code=2)["reason"] == "POLICY_MALFORMED"


def test_people_are_not_shown_four_thousand_characters(log, served, verify, capsys, tmp_path):
    """Of its ML-DSA signature they had a wall, in the first minute with `make demo`."""
    long = checkpoint(ENTRIES) + SignatureLine("x.test", b"1234", bytes(3000)).text().encode()
    log.show(ENTRIES, long)
    assert verify()["checkpoint"] == long.decode()
    kept = tmp_path / "kept"
    with pytest.raises(SystemExit):
        cli.main(["log", "verify", *served[1], "--remember", str(kept)])
    shown = capsys.readouterr().out
    assert "x.test" in shown
    assert max(map(len, shown.splitlines())) < 160
    assert kept.read_bytes() == long


def altered(log):
    log.entries[300] = b"entry 3OO"


def swapped(log):
    log.entries[7], log.entries[8] = log.entries[8], log.entries[7]


def cut(log):
    del log.entries[-1]


def one_more(log):
    log.bundle = b"".join(struct.pack(">H", len(entry)) + entry for entry in ENTRIES[:257])


def empty_entries(log):
    log.bundle = bytes(4_000_000)


def half_an_entry(log):
    log.bundle = b"\x00\x08entry"


@pytest.mark.parametrize("lie", [altered, swapped, cut, one_more, empty_entries, half_an_entry])
def test_entries_that_are_not_those_of_the_checkpoint(log, verify, lie):
    lie(log)
    assert verify(code=1)["reason"] == "EVIDENCE_DOES_NOT_ADD_UP"


def test_a_checkpoint_by_another_key(log, verify):
    other = Ed25519PrivateKey.generate()
    public = VerifierKey("capsign.test/log", other.public_key().public_bytes_raw())
    log.note = sign_checkpoint(600, root_of(ENTRIES), public, other.sign)
    assert verify(code=1)["reason"] == "CHECKPOINT_INVALID"


def test_an_answer_has_no_way_to_a_terminal(log, verify, served, capsys):
    """A line below the checkpoint is signed by nobody: it once went to the auditor's terminal as it
    was, escapes and all.
    """
    log.note += "— witness \x1b]0;owned\x07\n".encode()
    assert verify(code=1)["reason"] == "CHECKPOINT_INVALID"
    with pytest.raises(SystemExit):
        cli.main(["log", "verify", *served[1]])
    assert "\x1b]" not in "".join(capsys.readouterr())


# What was remembered.


def test_a_log_that_grows_is_remembered(log, verify, tmp_path):
    seen = tmp_path / "checkpoint"
    for size in (0, 1, 300, 512, 512, 600):
        log.show(ENTRIES[:size])
        verify("--remember", seen)
        assert seen.read_bytes() == log.note
    assert sorted(tmp_path.iterdir()) == [seen]


def forked(log):
    log.show([*ENTRIES[:100], b"another history", *ENTRIES[101:]])


def forked_and_longer(log):
    log.show([*ENTRIES[:100], b"another history", *ENTRIES[101:], b"more"])


def rolled_back(log):
    log.show(ENTRIES[:599])


def emptied(log):
    log.show([])


@pytest.mark.parametrize("lie", [forked, forked_and_longer, rolled_back, emptied])
def test_a_log_that_does_not_extend_what_was_seen(log, verify, tmp_path, lie):
    """Both signed checkpoints are the proof that the log lied; the second was once thrown away."""
    seen = tmp_path / "checkpoint"
    verify("--remember", seen)
    first = seen.read_bytes()
    lie(log)
    error = verify("--remember", seen, code=1)
    assert error["reason"] == "EVIDENCE_DOES_NOT_ADD_UP"
    assert seen.read_bytes() == first
    (kept,) = set(tmp_path.iterdir()) - {seen}
    assert kept.read_bytes() == log.note
    assert str(kept) in error["advice"]


def test_a_disk_that_fills_leaves_what_was_remembered(log, verify, tmp_path, monkeypatch):
    """The file was once opened for writing first: a crash or a full disk left it empty, and what
    had been seen was gone.
    """
    seen = tmp_path / "checkpoint"
    log.show(ENTRIES[:10])
    verify("--remember", seen)
    first = seen.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    log.show(ENTRIES)
    assert "No space left" in verify("--remember", seen, code=4)["message"]
    assert seen.read_bytes() == first
    assert list(tmp_path.iterdir()) == [seen]


@pytest.mark.parametrize("torn", [b"", checkpoint(ENTRIES)[:40], bytes(200)])
def test_a_damaged_memory_is_not_the_logs_fault(verify, log, tmp_path, torn):
    seen = tmp_path / "checkpoint"
    seen.write_bytes(torn)
    error = verify("--remember", seen, code=1)
    assert str(seen) in error["message"]
    assert seen.read_bytes() == torn


def test_a_run_that_ends_later_does_not_roll_the_memory_back(log, verify, tmp_path):
    """Two audits at once on one file: the slower one once put its smaller tree over the larger
    one.
    """
    seen = tmp_path / "checkpoint"
    larger = log.note
    log.show(ENTRIES[:300])
    log.meanwhile = lambda: seen.write_bytes(larger)
    assert verify("--remember", seen, code=4)["reason"] == "REMEMBERED_BY_ANOTHER"
    assert seen.read_bytes() == larger


def test_a_memory_that_cannot_be_kept_is_said_before_the_work(log, verify, tmp_path):
    log.entries = []
    assert verify("--remember", tmp_path / "none" / "checkpoint", code=2)["reason"] == "FILE"


def test_a_link_stays_a_link(log, verify, tmp_path):
    (tmp_path / "there").mkdir()
    seen = tmp_path / "checkpoint"
    seen.symlink_to(tmp_path / "there" / "checkpoint")
    verify("--remember", seen)
    assert seen.is_symlink()
    assert base64.b64encode(root_of(ENTRIES)) in seen.read_bytes()
