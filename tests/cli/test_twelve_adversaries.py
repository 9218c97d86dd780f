"""Twelve adversaries, each found by name by the command that a responder runs; the table in
docs/operations/incident.md says which, and is held against what is tried here.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.reconcile.refused_batches import RefusedBatches
from capsign_adapter.store.errors import AuditOutOfOrderError
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_evidence.note import VerifierKey
from capsign_evidence.split_view import Fault, SplitView
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.bundles import MESSAGE, SignedLog
from support.fake_log import FakeLog
from support.stored_log import StoredLog
from support.two_streams import OTHER, POLICY, SECOND, Agent

KEY = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
LOG = VerifierKey("log.example/audit", KEY.public_key().public_bytes_raw())
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "incident.md"


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


class Scene:
    """A deployment's store with honest records in it, closed and signed whenever a command runs."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.path = folder / "state" / "store.db"
        create_sqlite(self.path)
        self.store = SqliteStore(self.path)
        self.log = StoredLog(self.store)
        self.agent = Agent(self.log, 1)
        for number in range(6):
            self.agent.sign(signature=b"%d" % number)
            self.log.now_ms += SECOND
        self.agent.deliver()

    def sign_log(self) -> None:
        """The log's key signs what is there, as it does once a second."""
        size = self.store.control().tree_size
        entries = self.store.entries(0, size)
        root = Frontier().append([leaf_hash(entry) for entry in entries])[0].root()
        note = sign_checkpoint(size, root, LOG, KEY.sign)
        self.store.save_checkpoint(Checkpoint(size, root, note, self.log.now_ms))

    def change(self, *statements: str) -> None:
        """Who owns the database."""
        self.sign_log()
        self.store.close()
        with closing(sqlite3.connect(self.path)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    def run(self, *command: object, ends: int = 1) -> set[str]:
        """What a command names that ends with this exit code."""
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([*map(str, command), "-o", "json"])
        told = self._capsys.readouterr()
        answer: dict[str, Any] = json.loads(told.out or told.err)
        assert ended.value.code == ends, told
        names = [one["incident"] for one in answer.get("incidents", [])]
        names += [one["kind"] for one in answer.get("faults", [])]
        names += [answer["error"]["reason"]] if "error" in answer else []
        names += [answer["finding"]] if "finding" in answer else []
        return set(names)

    def verify(self, *options: object, ends: int = 1) -> set[str]:
        key = ("--log-key", LOG.text())
        return self.run("audit", "verify", self.path, *key, *options, ends=ends)

    def reconcile(self, *options: object) -> set[str]:
        return self.run("audit", "reconcile", self.path, *options)


def delete_a_record(scene: Scene) -> set[str]:
    scene.change("DELETE FROM log_segments WHERE first_index = 3")
    return scene.verify()


def change_a_record(scene: Scene) -> set[str]:
    scene.change(
        "UPDATE log_segments SET entries = replace(entries, 'orders', 'offers') "
        "WHERE first_index = 3"
    )
    return scene.verify()


def reorder(scene: Scene) -> set[str]:
    scene.change(
        "CREATE TEMP TABLE two AS SELECT * FROM log_segments WHERE first_index IN (2, 3)",
        "UPDATE log_segments SET entries = (SELECT entries FROM two t WHERE "
        "t.first_index = 5 - log_segments.first_index) WHERE first_index IN (2, 3)",
    )
    return scene.verify()


def truncate_the_tail(scene: Scene) -> set[str]:
    scene.change("DELETE FROM log_segments WHERE first_index >= 4")
    return scene.verify()


def roll_the_database_back(scene: Scene) -> set[str]:
    """A good log, with a good checkpoint: of yesterday."""
    scene.sign_log()
    yesterday = scene.folder / "yesterday.db"
    with closing(sqlite3.connect(scene.path)) as one, closing(sqlite3.connect(yesterday)) as two:
        one.backup(two)
    scene.agent.sign()
    scene.agent.end()
    scene.sign_log()
    remembered = scene.folder / "remembered"
    assert scene.verify("--remember", remembered, ends=0) == set()
    scene.path = yesterday
    return scene.verify("--remember", remembered)


def sign_with_the_token(scene: Scene) -> set[str]:
    """No entry, no record, no counter: only who was shown the signature has seen it."""
    signatures = scene.folder / "signatures"
    signatures.write_text(f"{hashlib.sha256(b'3').hexdigest()}\nc3RyYW5nZXI=\n")
    return scene.reconcile("--signatures", signatures)


def sign_as_the_agent(scene: Scene) -> set[str]:
    """With a copy of its certificate, key and handle: there is an entry, and no record."""
    scene.log.sign(scene.agent.workload, scene.agent.key, scene.log.intent())
    scene.agent.sign()
    scene.agent.deliver()
    return scene.reconcile()


def drop_a_batch(scene: Scene) -> set[str]:
    """Out of the agent's journal: the adapter cannot take the one after it."""
    scene.agent.speak()
    scene.agent.seal()
    scene.agent.sealed.clear()
    scene.agent.speak()
    refuse(scene)
    return scene.reconcile()


def delete_a_batch(scene: Scene) -> set[str]:
    scene.change("DELETE FROM audit_batches")
    return scene.reconcile()


def replay_a_batch(scene: Scene) -> set[str]:
    """As another workload's: to the adapter it is the first batch of a life."""
    scene.log.take(OTHER, scene.log.batches[max(scene.log.batches)])
    return scene.reconcile()


def forge_a_chain(scene: Scene) -> set[str]:
    scene.agent.previous = b"f" * 32
    scene.agent.speak()
    refuse(scene)
    return scene.reconcile()


def refuse(scene: Scene) -> None:
    """The agent delivers, and the adapter does what it does with a batch that does not follow."""
    refused = RefusedBatches(scene.store)
    scene.agent.seal()
    draft = scene.log.draft(scene.agent.workload, scene.agent.sealed[0])
    with pytest.raises(AuditOutOfOrderError) as error:
        scene.store.submit_audit(draft, scene.log.now_ms)
    refused.refused(draft, error.value.accepted_through, POLICY, scene.log.now_ms)


def fork_the_log(scene: Scene) -> set[str]:
    """What tests/system/test_split_view.py does with real processes."""
    log = FakeLog(leaves=6)
    seen, shown = log.fork().checkpoint(), log.fork().checkpoint()
    split = SplitView("a:7443", 1, Fault.FORKED, log.key.text(), seen, shown)
    file = scene.folder / "split-view.json"
    file.write_bytes(split.encode())
    return scene.run("audit", "split-view", file)


def stand_still(scene: Scene) -> set[str]:
    """The adapter named leaf 6 long ago, and shows a log of three leaves, which is a good one."""
    log = FakeLog(leaves=3)
    shown = log.checkpoint()
    place = scene.folder / "whole.db"
    create_sqlite(place)
    store = SqliteStore(place)
    store.append(log.grow(6).leaves, 1)
    store.close()
    split = SplitView("a:7443", 1, Fault.WITHHELD, log.key.text(), shown, shown, told=7)
    file = scene.folder / "split-view.json"
    file.write_bytes(split.encode())
    return scene.run("audit", "split-view", file, place)


def forge_a_receipt(scene: Scene) -> set[str]:
    return scene.run(*receipt(scene, forged=True), "--log-key", SignedLog().verifier_key.text())


def strip_a_witness(scene: Scene) -> set[str]:
    """The log alone has signed: whoever demands a witness does not believe it."""
    witness = VerifierKey("witness.example", KEY.public_key().public_bytes_raw())
    policy = scene.folder / "policy"
    policy.write_text(
        f"log {SignedLog().verifier_key.text()}\nwitness w {cosigner(witness)}\nquorum w\n"
    )
    return scene.run(*receipt(scene), "--policy", policy)


def cosigner(key: VerifierKey) -> str:
    from capsign_evidence.cosignature import COSIGNATURE_ED25519, CosignerKey

    return CosignerKey(key.name, COSIGNATURE_ED25519, key.public_key).text()


def receipt(scene: Scene, *, forged: bool = False) -> list[object]:
    signed = SignedLog()
    message, bundle = scene.folder / "message", scene.folder / "bundle"
    key = scene.folder / "key.pem"
    message.write_bytes(MESSAGE)
    key.write_text(signed.pem)
    data = json.loads(signed.data())
    if forged:
        other = SignedLog(before=299)  # a proof that is good, of another entry
        data["receipt"] = json.loads(other.data())["receipt"]
    bundle.write_text(json.dumps(data))
    return ["verify", message, "--receipt", bundle, "--key", key]


ADVERSARIES: dict[str, tuple[Callable[[Scene], set[str]], str]] = {
    "delete a record": (delete_a_record, "EVIDENCE_DAMAGED"),
    "change a record": (change_a_record, "root-differs"),
    "reorder records": (reorder, "root-differs"),
    "truncate the tail": (truncate_the_tail, "truncated"),
    "roll the database back": (roll_the_database_back, "EVIDENCE_DOES_NOT_ADD_UP"),
    "sign with the token": (sign_with_the_token, "signature-without-leaf"),
    "sign with an agent's credentials": (sign_as_the_agent, "signed-not-reported"),
    "drop an agent's batch": (drop_a_batch, "gap"),
    "delete an agent's batch from the store": (delete_a_batch, "batch-lost"),
    "replay a batch": (replay_a_batch, "replayed-batch"),
    "forge an agent's chain": (forge_a_chain, "forged-chain"),
    "fork the log towards one agent": (fork_the_log, "two_trees"),
    "show one agent a log that stands still": (stand_still, "withheld"),
    "forge a receipt": (forge_a_receipt, "PROOF_INVALID"),
    "strip a witness": (strip_a_witness, "WITNESS_MISSING"),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_an_adversary_is_found_by_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    act, expected = ADVERSARIES[name]
    assert expected in act(Scene(tmp_path, capsys))


def test_exported_tiles_say_what_the_store_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, capsys)
    expected = sign_as_the_agent(scene)
    scene.sign_log()
    copied = tmp_path / "tiles"
    told = ("log", "export", copied, "--archive", scene.path, "--log-key", LOG.text())
    scene.run(*told, ends=0)
    scene.path = copied
    assert scene.reconcile() == expected == {"signed-not-reported"}


def test_the_page_says_which_command_names_which_adversary() -> None:
    rows = re.findall(r"^\| ([a-z' ]+) \| `([^`]+)` \| `([^`]+)`", PAGE.read_text(), re.MULTILINE)
    told = {name: word for name, command, word in rows if command.startswith("capsign ")}
    assert told == {name: word for name, (_, word) in ADVERSARIES.items()}
