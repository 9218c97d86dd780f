"""`capsign audit split-view`: what a file that an agent kept proves, by itself and with the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from capsign_adapter.store.open import create_store, open_store
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_evidence.split_view import Fault, SplitView
from support.fake_log import FakeLog


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def log() -> FakeLog:
    return FakeLog(leaves=6)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Judges a split view; exit code, what was found, and standard error."""

    def command(split: SplitView | bytes, *arguments: str) -> tuple[int, dict[str, Any], str]:
        file = tmp_path / "split-view.json"
        file.write_bytes(split if isinstance(split, bytes) else split.encode())
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", "split-view", str(file), *arguments, "-o", "json"])
        told = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, json.loads(told.out) if told.out else {}, told.err

    return command


def split(log: FakeLog, seen: bytes, shown: bytes) -> SplitView:
    return SplitView("a:7443", 1_700_000_000_000, Fault.FORKED, log.key.text(), seen, shown)


def stored(log: FakeLog, path: Path) -> str:
    """A store with these leaves."""
    create_store(f"sqlite://{path}")
    store = open_store(f"sqlite://{path}")
    store.append(log.leaves, 0)
    store.close()
    return str(path)


def test_two_trees_of_one_size_are_proven_by_the_file_alone(run, log: FakeLog) -> None:
    code, told, _ = run(split(log, log.fork().checkpoint(), log.fork().checkpoint()))
    assert (code, told["finding"]) == (1, "two_trees")
    assert told["seen"].startswith("7 leaves, root ")
    other = FakeLog().key.text()
    code, told, _ = run(split(log, log.fork().checkpoint(), b""), "--log-key", other)
    assert (code, told["finding"], told["seen"]) == (0, "nothing", "not signed by it")


def test_the_log_decides_what_no_proof_joins(run, log: FakeLog, tmp_path: Path) -> None:
    fork = log.fork(3)
    one = split(log, log.grow(2).checkpoint(), fork.checkpoint())
    code, told, _ = run(one)
    assert (code, told["finding"]) == (3, "undecided")
    code, told, _ = run(one, stored(log.grow(5), tmp_path / "s.sqlite"))
    assert (code, told["finding"]) == (1, "not_in_log")


def test_what_is_no_such_file_and_no_such_archive_is_said(
    run, log: FakeLog, tmp_path: Path
) -> None:
    code, _, said = run(b"{}")
    assert code == 2
    assert "capsign-split-view/1" in said
    code, _, said = run(split(log, b"", log.checkpoint()), str(tmp_path / "no"))
    assert code == 4
