"""`capsign audit reconcile` on a copy of a store: no adapter, no HSM, no network."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit import incident_words
from capsign_evidence.incident_leaf import IncidentKind
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from support.stored_log import StoredLog
from support.two_streams import HOUR, Agent


@pytest.fixture(autouse=True)
def _tables_again() -> Iterator[None]:
    yield
    output.start([])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_sqlite(tmp_path / "state" / "store.db")
    return tmp_path / "state" / "store.db"


@pytest.fixture
def log(path: Path) -> Iterator[StoredLog]:
    store = SqliteStore(path)
    yield StoredLog(store)
    store.close()


def ended(*arguments: object) -> Any:
    with pytest.raises(SystemExit) as end:
        cli.main(["audit", "reconcile", *map(str, arguments)])
    return end.value.code


def run(capsys: Any, *arguments: object) -> tuple[int, Any]:
    code = ended(*arguments, "-o", "json")
    return code, json.loads(capsys.readouterr().out or "null")


def kinds(told: Any) -> list[str]:
    return [one["incident"] for one in told["incidents"]]


def test_every_kind_has_its_words() -> None:
    assert set(incident_words.MEANINGS) == {
        kind.name.lower().replace("_", "-") for kind in IncidentKind
    }


def test_an_honest_log_adds_up(log: StoredLog, path: Path, capsys: Any) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.end()
    code, told = run(capsys, path)
    assert (code, told["incidents"], told["through"]) == (0, [], 2)
    assert ended(path) == 0
    assert capsys.readouterr().out == "Everything adds up: 2 entries were read.\n"


def test_a_signature_that_nobody_reports(log: StoredLog, path: Path, capsys: Any) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    stolen = log.intent()
    log.sign(agent.workload, agent.key, stolen)
    log.now_ms += HOUR
    agent.end()
    code, told = run(capsys, path)
    [incident] = told["incidents"]
    assert (code, incident["incident"], incident["leaf"]) == (1, "signed-not-reported", 1)
    assert incident["digest"] == agent.key.hex()


def test_late_and_silent_agents_are_shown_and_are_no_failure(
    log: StoredLog, path: Path, capsys: Any
) -> None:
    agent = Agent(log, 1)
    agent.deliver()
    agent.sign()
    log.now_ms += HOUR // 2
    Agent(log, 2).deliver()
    code, told = run(capsys, path)
    assert (code, kinds(told)) == (0, ["late"])


def test_a_signature_that_has_no_entry(
    log: StoredLog, path: Path, tmp_path: Path, capsys: Any
) -> None:
    """Made in the token, behind the adapter's back: nobody but who verified it has seen it."""
    agent = Agent(log, 1)
    signature, stranger = b"known signature", b"made beside the adapter"
    index = agent.sign(signature=signature)
    agent.end()
    assert index
    handed = tmp_path / "signatures"
    encoded = base64.urlsafe_b64encode(signature).decode().rstrip("=")
    handed.write_text(
        f"# from the payment service\n{base64.b64encode(signature).decode()}\n"
        f"e30.e30.{encoded}\n\nsha256:{hashlib.sha256(stranger).hexdigest()}\n"
    )
    code, told = run(capsys, path, "--signatures", handed)
    [incident] = told["incidents"]
    assert (code, incident["incident"]) == (1, "signature-without-leaf")
    assert incident["digest"] == hashlib.sha256(stranger).hexdigest()
    handed.write_text("what is this?\n")
    code, _ = run(capsys, path, "--signatures", handed)
    assert code == 2


@pytest.mark.parametrize(("algorithm", "size"), [("ES256", 32), ("ES384", 48)])
def test_what_a_jws_holds_of_ecdsa_is_found(
    log: StoredLog, path: Path, tmp_path: Path, capsys: Any, algorithm: str, size: int
) -> None:
    """The log has DER, and a JWS R || S: each JWS of an honest log was an incident."""
    r, s = 1 << 8 * size - 2, 7
    agent = Agent(log, 1)
    agent.sign(signature=encode_dss_signature(r, s))
    agent.end()
    raw = r.to_bytes(size, "big") + s.to_bytes(size, "big")
    forms = [base64url(raw), base64.b64encode(raw).decode()]
    forms += [jws(header, raw) for header in ({"alg": algorithm}, {})]
    handed = tmp_path / "signatures"
    handed.write_text("\n".join(forms))
    code, told = run(capsys, path, "--signatures", handed)
    assert (code, told["incidents"], told["handed_in"]) == (0, [], 4)
    handed.write_text(jws({"alg": "EdDSA"}, raw))
    assert run(capsys, path, "--signatures", handed)[0] == 1


def jws(header: dict[str, str], signature: bytes) -> str:
    return f"{base64url(json.dumps(header).encode())}.e30.{base64url(signature)}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_a_batch_that_was_changed_or_deleted(log: StoredLog, path: Path, capsys: Any) -> None:
    agent = Agent(log, 1)
    agent.sign()
    agent.end()
    log.store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM audit_batches")
    code, told = run(capsys, path)
    assert (code, kinds(told)) == (1, ["batch-lost"])


def test_what_the_running_adapter_wrote_is_told_too(
    log: StoredLog, path: Path, capsys: Any
) -> None:
    """It saw a silence that a copy cannot show: nothing was written during it."""
    Agent(log, 1).deliver()
    log.silence(log.entries[0])
    code, told = run(capsys, path)
    assert (code, kinds(told)) == (0, ["silence"])
    assert told["incidents"][0]["told_by_adapter"] is True


def test_who_names_no_archive_must_name_an_adapter(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.delenv("CAPSIGN_ADAPTER", raising=False)
    assert ended("--signatures", __file__) == 2
