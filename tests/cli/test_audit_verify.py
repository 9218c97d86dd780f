"""`capsign audit verify`: whatever somebody who owns the database changes in it is found, named,
and exit code 1.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from capsign_adapter.model.evidence import Checkpoint
from capsign_adapter.sign.tile_summaries import TileSummaries
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_evidence.archive import open_archive
from capsign_evidence.checkpoint import sign_checkpoint
from capsign_evidence.merkle import Frontier, leaf_hash
from capsign_evidence.note import VerifierKey
from capsign_evidence.tiles import bundle
from support.drafts import audit
from support.evidence_at_rest import APP, T0, batch, record, refused, signed
from support.log_files import KEY, LOG, as_files

SIGNATURES = 600


DOCUMENT = b"version: 1\n"
"""A policy, that one entry was decided under."""


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


def take(store, records, previous=None):
    """Submits a batch as an agent does. Returns its draft."""
    entry, data = batch(records, T0, previous=previous.batch_hash if previous else b"")
    draft = replace(
        audit(),
        workload=APP,
        boot_id=b"\x77" * 16,
        previous=previous.batch_hash if previous else b"",
        first_sequence=records[0].sequence,
        last_sequence=records[-1].sequence,
        batch=data,
        batch_hash=hashlib.sha256(data).digest(),
        leaf=entry,
    )
    store.submit_audit(draft, T0)
    return draft


def note_of(entries) -> Checkpoint:
    root = Frontier().append([leaf_hash(entry) for entry in entries])[0].root()
    return Checkpoint(len(entries), root, sign_checkpoint(len(entries), root, LOG, KEY.sign), T0)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A store with three tiles, batches of one agent, summaries, and a checkpoint that covers all
    but the last ten entries.
    """
    path = tmp_path_factory.mktemp("evidence") / "store.db"
    create_sqlite(path)
    store = SqliteStore(path)
    first = take(store, [record(1, "OPEN"), record(2, "INTENT")])
    for at in range(0, SIGNATURES, 50):
        store.append([signed(number, T0 + number) for number in range(at, at + 50)], T0)
    second = take(store, [record(3, "OUTCOME")], first)
    store.append([refused(900, policy_digest=hashlib.sha256(DOCUMENT).digest())], T0)
    take(store, [record(4, "HANDLES"), record(5, "CLOSE")], second)
    size = store.control().tree_size
    store.save_checkpoint(note_of(store.entries(0, size)))
    store.append([signed(number, T0) for number in range(1000, 1010)], T0)
    TileSummaries(store).step()
    store.close()
    return path


@pytest.fixture
def copy(original, tmp_path):
    place = tmp_path / "copy.db"
    place.write_bytes(original.read_bytes())
    return place


def change(copy, *statements):
    with closing(sqlite3.connect(copy)) as connection:
        connection.create_function("flip", 1, lambda blob: bytes([blob[0] ^ 1]) + blob[1:])
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "verify", *map(str, arguments)])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def verify(copy, *options, capsys):
    code, out, err = run(copy, "--log-key", LOG.text(), "-o", "json", *options, capsys=capsys)
    return code, json.loads(out or err)


def kinds(told):
    return {fault["kind"] for fault in told["faults"]}


def test_what_an_adapter_wrote_verifies(copy, capsys):
    code, told = verify(copy, capsys=capsys)
    assert (code, told["verified"], told["faults"]) == (0, True, [])
    assert (told["entries"], told["covered"], told["batches"]) == (614, 604, 3)
    assert (told["agent_lives"], told["summaries"], told["unreadable"]) == (1, 2, 0)


@pytest.fixture
def files(original, tmp_path):
    """The same log as files, up to its checkpoint."""
    with open_archive(original) as archive:
        (note,) = archive.notes()
    return as_files(original, tmp_path / "log", note)


@pytest.mark.parametrize("document", [DOCUMENT, b"x", DOCUMENT + b"x"])
def test_the_document_of_a_policy_is_held_against_the_digests_that_entries_name(
    files, document, capsys
):
    """It was held against nothing, and says whose key a grant was for."""
    path = files / "capsign/policies" / hashlib.sha256(DOCUMENT).hexdigest()
    path.parent.mkdir(parents=True)
    path.write_bytes(document)
    code, told = verify(files, capsys=capsys)
    good = document == DOCUMENT
    assert (code, kinds(told)) == ((0, set()) if good else (1, {"policy-differs"}))
    assert (told["policies"], told["policies_lacking"]) == ((1, 1) if good else (0, 2))


@pytest.mark.parametrize("path", ["tile/0/002.p/92", "tile/0/001", "tile/1/000.p/2"])
def test_a_tile_that_has_more_than_its_hashes_is_none(files, path, capsys):
    with (files / path).open("ab") as tile:
        tile.write(bytes(32))
    code, told = verify(files, capsys=capsys)
    assert (code, kinds(told)) == (1, {"hashes-differ"})


def test_a_bundle_that_has_more_than_its_entries_is_damage(files, capsys):
    path = files / "tile/entries/002.p/92"
    path.write_bytes(path.read_bytes() + bundle([signed(3000, T0)]))
    code, told = verify(files, capsys=capsys)
    assert (code, told["error"]["reason"]) == (1, "EVIDENCE_DAMAGED")


def test_a_log_in_files_verifies(files, capsys):
    code, told = verify(files, capsys=capsys)
    assert (code, told["verified"], told["faults"]) == (0, True, [])
    assert (told["entries"], told["covered"], told["batches"]) == (604, 604, 3)
    assert (told["agent_lives"], told["summaries"], told["unreadable"]) == (1, 2, 0)


FILE_CHANGES = {
    "an entry changed": ("tile/entries/000", {"root-differs", "hashes-differ"}),
    "a batch changed": ("capsign/batches/000", {"batch-differs"}),
    "a stored hash changed": ("tile/1/000.p/2", {"hashes-differ"}),
    "a leaf's stored hash changed": ("tile/0/001", {"hashes-differ"}),
    "the last leaf's stored hash changed": ("tile/0/002.p/92", {"hashes-differ"}),
    "a summary changed": ("capsign/summaries/001", {"summary-differs"}),
}


@pytest.mark.parametrize("what", FILE_CHANGES)
def test_a_change_of_a_file_is_found_and_named(files, what, capsys):
    path, expected = FILE_CHANGES[what]
    data = bytearray((files / path).read_bytes())
    data[-1] ^= 1
    (files / path).chmod(0o600)
    (files / path).write_bytes(data)
    code, told = verify(files, capsys=capsys)
    assert code == 1
    assert expected <= kinds(told), told["faults"]


CHANGES = {
    "an entry changed": (
        "UPDATE log_segments SET entries = replace(entries, 'orders', 'offers') "
        "WHERE first_index = 101",
        {"root-differs", "hashes-differ", "summary-differs"},
    ),
    "a batch changed": (
        "UPDATE audit_batches SET batch = batch || x'00' WHERE first_sequence = 3",
        {"batch-differs"},
    ),
    "a batch dropped": (
        "DELETE FROM audit_batches WHERE first_sequence = 3",
        {"batch-missing"},
    ),
    "a batch added": (
        "INSERT INTO audit_batches SELECT 99, workload_id, boot_id, 1, 77, batch_hash, batch FROM "
        "audit_batches WHERE first_sequence = 3",
        {"batch-without-leaf"},
    ),
    "batches exchanged": (
        "UPDATE audit_batches SET batch = (SELECT batch FROM audit_batches WHERE "
        "first_sequence = 1) WHERE first_sequence = 3",
        {"batch-differs"},
    ),
    "a batch given to another workload": (
        "UPDATE workloads SET spiffe_id = 'spiffe://capsign.test/ns/x/sa/y'",
        {"batch-differs"},
    ),
    "a stored hash changed": (
        "UPDATE log_nodes SET hash = flip(hash) WHERE tile_level = 1 AND node_index = 1",
        {"hashes-differ"},
    ),
    "a leaf's stored hash changed": (
        "UPDATE log_segments SET hashes = flip(hashes) WHERE first_index = 101",
        {"hashes-differ"},
    ),
    "a summary changed, to hide a tile": (
        "UPDATE log_summaries SET summary = substr(summary, 1, 18) || zeroblob(400) "
        "WHERE tile_index = 1",
        {"summary-differs"},
    ),
    "the tail cut off": (
        "DELETE FROM log_segments WHERE first_index >= 551",
        {"truncated", "batch-without-leaf"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_found_and_named(copy, what, capsys):
    statement, expected = CHANGES[what]
    change(copy, statement)
    code, told = verify(copy, capsys=capsys)
    assert code == 1
    assert not told["verified"]
    assert expected <= kinds(told), told["faults"]


def test_an_entry_that_is_gone_from_the_middle_is_damage(copy, capsys):
    change(copy, "DELETE FROM log_segments WHERE first_index = 101")
    code, told = verify(copy, capsys=capsys)
    assert (code, told["error"]["reason"]) == (1, "EVIDENCE_DAMAGED")
    assert "101 to 150" in told["error"]["message"]


def test_entries_in_another_order_have_another_root(copy, capsys):
    change(
        copy,
        "CREATE TEMP TABLE one AS SELECT entries FROM log_segments WHERE first_index = 101",
        "UPDATE log_segments SET entries = (SELECT entries FROM log_segments WHERE "
        "first_index = 151) WHERE first_index = 101",
        "UPDATE log_segments SET entries = (SELECT entries FROM one) WHERE first_index = 151",
    )
    code, told = verify(copy, capsys=capsys)
    assert (code, kinds(told)) == (1, {"root-differs", "hashes-differ"})


def test_a_log_that_was_rewritten_as_a_whole_is_not_the_one_that_was_signed(copy, capsys):
    """Everything recomputed, as who owns the database can: without the key there is no checkpoint
    for it.
    """
    change(copy, "DELETE FROM log_segments", "DELETE FROM log_nodes", "DELETE FROM audit_batches")
    change(copy, "DELETE FROM log_summaries", "UPDATE control SET tree_size = 0, frontier = x'00'")
    entries = [signed(number) for number in range(604)]
    data = b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)
    with closing(sqlite3.connect(copy)) as connection:
        hashes = [leaf_hash(entry) for entry in entries]
        connection.execute(
            "INSERT INTO log_segments VALUES (0, 604, ?, ?, 0)", (b"".join(hashes), data)
        )
        for node in Frontier().append(hashes)[1]:
            connection.execute("INSERT INTO log_nodes VALUES (1, ?, ?)", (node.index, node.hash))
        connection.commit()
    code, told = verify(copy, capsys=capsys)
    assert (code, kinds(told)) == (1, {"root-differs"})


def test_a_checkpoint_of_another_key_or_none_is_refused(copy, capsys):
    other = VerifierKey(LOG.name, b"\1" * 32)
    code, out, err = run(copy, "--log-key", other.text(), capsys=capsys)
    assert (code, out) == (1, "")
    assert "No signature by log.example/audit" in err
    change(copy, "DELETE FROM checkpoint")
    code, out, err = run(copy, "--log-key", LOG.text(), capsys=capsys)
    assert code == 1
    assert "--checkpoint" in err


def test_a_checkpoint_that_somebody_else_kept_counts(original, copy, tmp_path, capsys):
    """Yesterday's whole store, with its checkpoint, is a good log. A witness remembers more."""
    kept = tmp_path / "kept"
    with closing(sqlite3.connect(original)) as connection:
        kept.write_bytes(connection.execute("SELECT note FROM checkpoint").fetchone()[0])
    with closing(sqlite3.connect(copy)) as connection:
        entries = entries_in(connection)[:551]
        old = note_of(entries)
        connection.execute("UPDATE checkpoint SET tree_size = 551, note = ?", (old.note,))
        connection.execute("DELETE FROM log_segments WHERE first_index >= 551")
        connection.execute("DELETE FROM audit_batches WHERE leaf_index >= 551")
        connection.commit()
    assert verify(copy, capsys=capsys)[0] == 0
    code, told = verify(copy, "--checkpoint", kept, capsys=capsys)
    assert (code, kinds(told)) == (1, {"truncated"})
    remembered = tmp_path / "remembered"
    assert verify(original, "--remember", remembered, capsys=capsys)[0] == 0
    code, told = verify(copy, "--remember", remembered, capsys=capsys)
    assert code == 1
    assert "shrunk from 604 to 551" in told["error"]["message"]
    assert remembered.read_bytes() == kept.read_bytes()


def entries_in(connection):
    """All entries that a connection's store has."""
    found = []
    for (data,) in connection.execute("SELECT entries FROM log_segments ORDER BY first_index"):
        at = 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            found.append(data[at + 2 : end])
            at = end
    return found


def test_a_policy_says_whose_signatures_are_demanded(copy, tmp_path, capsys):
    policy = tmp_path / "policy"
    policy.write_text(f"log {LOG.text()}\nquorum none\n")
    code, out, _ = run(copy, "--policy", policy, "-o", "json", capsys=capsys)
    assert (code, json.loads(out)["covered"]) == (0, 604)
    witness = VerifierKey("witness.example", KEY.public_key().public_bytes_raw())
    policy.write_text(f"log {LOG.text()}\nwitness w1 {witness.text()}\nquorum w1\n")
    code, out, err = run(copy, "--policy", policy, "-o", "json", capsys=capsys)
    assert code in {1, 2}
    assert json.loads(err)["error"]["reason"] in {"CHECKPOINT_INVALID", "POLICY_MALFORMED"}
    policy.write_text("log\n")
    code, _, err = run(copy, "--policy", policy, capsys=capsys)
    assert code == 2


def test_what_it_needs_is_asked_for(copy, tmp_path, capsys):
    for options, said in (
        ([], "--log-key or --policy"),
        (["--policy", __file__, "--remember", tmp_path / "r"], "Give --log-key too"),
    ):
        code, out, err = run(copy, *options, capsys=capsys)
        assert (code, out) == (2, "")
        assert said in err


def test_people_are_told_what_does_not_hold(copy, capsys):
    change(copy, "DELETE FROM audit_batches WHERE first_sequence = 3")
    code, out, err = run(copy, "--log-key", LOG.text(), capsys=capsys)
    assert code == 1
    assert "batch-missing: The batch of leaf 601 is not held." in out
    assert "incident" in err
