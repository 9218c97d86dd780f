"""`capsign audit query` on a copy of a store: no adapter, no HSM, no network."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sqlite3
import sys
from dataclasses import replace
from uuid import UUID

import pytest
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_evidence import leaf
from capsign_evidence.archive import open_archive
from capsign_evidence.archive.events import Event
from capsign_evidence.leaf_kinds import Act
from capsign_wire.types.v1 import failures_pb2
from support.drafts import audit
from support.evidence_at_rest import (
    APP,
    POLICY,
    T0,
    batch,
    commitment,
    intent,
    record,
    refused,
    signed,
)
from support.log_files import as_files

OTHER = "spiffe://capsign.test/ns/shop/sa/other"
ANN = "spiffe://capsign.test/people/ann"


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture(scope="module")
def store_file(tmp_path_factory):
    """A store that an adapter filled and nobody has open."""
    path = tmp_path_factory.mktemp("evidence") / "store.db"
    create_sqlite(path)
    store = SqliteStore(path)
    store.append([signed(1, T0), signed(2, T0 + 1000)], T0)
    store.append([refused(3, T0 + 2000, workload=OTHER, key="invoices")], T0)
    records = [
        record(1, "OPEN", T0),
        record(
            2,
            "OUTCOME",
            T0 + 1500,
            intent_id=intent(9),
            outcome=failures_pb2.OUTCOME_REFUSED,
            reason=failures_pb2.REASON_CONTEXT_NOT_ALLOWED,
            grant="other-invoices",
        ),
    ]
    entry, data = batch(records, T0 + 3000, workload=OTHER)
    draft = replace(
        audit(records=2),
        workload=OTHER,
        batch=data,
        batch_hash=hashlib.sha256(data).digest(),
        leaf=entry,
    )
    store.submit_audit(draft, T0)
    store.append([leaf.admin(T0 + 4000, POLICY, Act.KEY_REVOKED, ANN, "shop/orders", 9)], T0)
    store.close()
    return path


@pytest.fixture(scope="module", params=["store", "files"])
def place(store_file, tmp_path_factory, request):
    """The same evidence as a store and as files."""
    if request.param == "store":
        return store_file
    return as_files(store_file, tmp_path_factory.mktemp("files") / "log")


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "query", *map(str, arguments)])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def ask(place, *arguments, capsys):
    code, out, err = run(place, "-o", "json", *arguments, capsys=capsys)
    assert (code, err) == (0, ""), err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], [0, 1, 2, 3, 3, 4]),
        (["--batches"], [0, 1, 2, 3, 3, 3, 4]),
        (["--workload", OTHER], [2, 3, 3]),
        (["--workload", OTHER, "--workload", APP, "--outcome", "done"], [0, 1]),
        (["--outcome", "refused"], [2, 3]),
        (["--outcome", "refused", "--stream", "agent"], [3]),
        (["--reason", "context-not-allowed"], [3]),
        (["--key", "shop/invoices"], [2]),
        (["--key", "orders", "--tenant", "shop"], [0, 1, 4]),
        (["--key", "shop/orders/3"], [0, 1, 4]),
        (["--key", "shop/orders/4"], [4]),
        (["--commitment", commitment(2).hex()], [1]),
        (["--intent", intent(1).hex()], [0]),
        (["--actor", ANN], [4]),
        (["--act", "key-revoked"], [4]),
        (["--since", "2026-09-21T14:13:21Z", "--until", "2026-09-21T14:13:22Z"], [1, 3]),
        (["--since", "1h"], []),
        (["--what", "agent-batch"], [3]),
        (["--limit", "2"], [0, 1]),
        (["--read-all", "--grant", "other-invoices"], [3]),
    ],
)
def test_what_is_asked_for_is_answered_in_the_order_of_the_log(place, asked, found, capsys):
    assert [one["index"] for one in ask(place, *asked, capsys=capsys)] == found


def test_an_event_in_json_has_all_that_was_recorded(place, capsys):
    (one,) = ask(place, "--reason", "CONTEXT_NOT_ALLOWED", capsys=capsys)
    assert one == {
        "time": "2026-09-21T14:13:21.500Z",
        "index": 3,
        "time_ms": T0 + 1500,
        "stream": "agent",
        "what": "outcome",
        "outcome": "refused",
        "reason": "CONTEXT_NOT_ALLOWED",
        "workload": OTHER,
        "grant": "other-invoices",
        "intent_id": str(UUID(bytes=intent(9))),
        "boot_id": "77" * 16,
        "sequence": 2,
    }


def test_csv_has_a_column_for_every_field(place, capsys):
    code, out, err = run(place, "-o", "csv", capsys=capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 6)
    assert set(rows[0]) == {"time", *Event.__annotations__}
    assert [row["what"] for row in rows] == [
        "signed",
        "signed",
        "refused",
        "open",
        "outcome",
        "admin",
    ]


def test_people_get_a_line_for_each_and_how_much_was_read(place, capsys):
    code, out, err = run(place, "--workload", OTHER, capsys=capsys)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("2026-09-21T14:13:22.000Z")
    for part in ("refused refused RATE_LIMITED", OTHER, "shop/invoices/3", "grant=checkout-orders"):
        assert part in lines[0]
    assert err == "3 events; 5 of 5 entries were read.\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--reason", "NO_SUCH"], "RATE_LIMITED"),
        (["--algorithm", "ROT13"], "Ed25519"),
        (["--what", "everything"], "identity-issued"),
        (["--outcome", "bad"], "never"),
        (["--act", "dance"], "key-revoked"),
        (["--key", "a/b/c"], "TENANT/KEY/VERSION"),
        (["--key", "a/b/0"], "TENANT/KEY/VERSION"),
        (["--key", "a/b/99999999999"], "TENANT/KEY/VERSION"),
        (["--key", "Shop/orders"], "TENANT/KEY/VERSION"),
        (["--workload", "sa/checkout"], "a SPIFFE ID"),
        (["--tenant", "Shop"], "lower-case letters"),
        (["--grant", "checkout orders"], "lower-case letters"),
        (["--key", "shop/x", "--tenant", "bank"], "two tenants"),
        (["--since", "yesterday"], "2026-11-30T03:00:00Z"),
        (["--since", "2026-11-30T03:00:00"], "2026-11-30T03:00:00Z"),
        (["--intent", "abc"], "UUID"),
        (["--commitment", "00"], "64 hexadecimal digits"),
        (["--message", "letter.txt"], "capsign audit prove"),
    ],
)
def test_wrong_use_says_what_there_is(place, asked, said, capsys):
    """A workload without `spiffe://` was answered with no events and exit code 0, which reads as
    if nothing had happened.
    """
    code, out, err = run(place, *asked, capsys=capsys)
    assert (code, out) == (2, "")
    assert said in err


def test_a_place_without_evidence_is_wrong_use(tmp_path, capsys):
    for there, said in ((tmp_path / "absent.db", "copy of the store"), (tmp_path, "holds no log")):
        code, out, err = run(there, capsys=capsys)
        assert (code, out) == (2, "")
        assert said in err


def test_a_server_that_is_not_there_is_unavailable(capsys):
    code, _, err = run("postgresql://capsign:secret@127.0.0.1:1/none", capsys=capsys)
    assert code == 4
    assert "secret" not in err


def test_damage_is_found_and_is_exit_code_1(store_file, tmp_path, capsys):
    copy = tmp_path / "copy.db"
    copy.write_bytes(store_file.read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("DELETE FROM log_segments WHERE first_index = 2")
    connection.close()
    code, out, err = run(copy, "-o", "json", capsys=capsys)
    assert code == 1
    assert len(out.splitlines()) == 2
    assert json.loads(err)["error"]["reason"] == "EVIDENCE_DAMAGED"


def test_of_two_checkpoints_of_one_size_the_cosigned_one_comes_first(tmp_path):
    path = tmp_path / "store.db"
    create_sqlite(path)
    with sqlite3.connect(path) as connection:
        connection.execute("REPLACE INTO checkpoint VALUES (1, 7, x'00', CAST('log' AS BLOB), 0)")
        connection.execute("REPLACE INTO published VALUES (1, 7, x'00', CAST('all' AS BLOB), 0)")
    with open_archive(str(path)) as archive:
        assert archive.notes() == [b"all", b"log"]


def test_without_psycopg_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    code, _, err = run("postgresql://127.0.0.1/none", capsys=capsys)
    assert code == 2
    assert "pip install 'capsign-cli[postgres]'" in err
