"""What an agent remembers of the log over a restart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from capsign_agent.journal.directory import JournalError
from capsign_agent.witness.log_view import LogView
from capsign_agent.witness.memory import WitnessMemory
from capsign_evidence.split_view import MAX_FILE_LEN, Fault, SplitView
from support.agent_home import home
from support.agent_pki import TestCa
from support.fake_log import FakeLog


def seen_by(log: FakeLog) -> LogView:
    view = LogView()
    view.take(view.read(log.checkpoint(), log.key.text()), ())
    return view


def split(adapter: str) -> SplitView:
    return SplitView(adapter, 1, Fault.FORKED, "", b"seen\n", b"shown\n", (bytes(32),))


def test_nothing_is_known_at_first_and_nothing_is_made(tmp_path: Path) -> None:
    view = WitnessMemory(tmp_path).view()
    assert (view.key, view.seen) == (None, None)
    assert not list(tmp_path.iterdir())


def test_what_was_seen_is_there_after_a_restart(tmp_path: Path) -> None:
    log = FakeLog(leaves=5)
    WitnessMemory(tmp_path).remember(seen_by(log))
    again = WitnessMemory(tmp_path).view()
    assert (again.key, again.size) == (log.key, 5)
    assert {path.name for path in (tmp_path / "witness").iterdir()} == {"log-key", "checkpoint"}


def test_a_configured_key_is_demanded_of_what_is_remembered(tmp_path: Path) -> None:
    WitnessMemory(tmp_path).remember(seen_by(FakeLog()))
    with pytest.raises(JournalError, match="no known key signed"):
        WitnessMemory(tmp_path, FakeLog().key.text()).view()


@pytest.mark.parametrize("name", ["log-key", "checkpoint"])
def test_what_cannot_be_read_stops_the_start(tmp_path: Path, name: str) -> None:
    """It is not taken as absent: the next checkpoint would be believed without a proof."""
    WitnessMemory(tmp_path).remember(seen_by(FakeLog()))
    (tmp_path / "witness" / name).write_bytes(b"\xff")
    with pytest.raises(JournalError, match=name):
        WitnessMemory(tmp_path).view()


def test_a_checkpoint_without_its_key_stops_the_start(tmp_path: Path) -> None:
    WitnessMemory(tmp_path).remember(seen_by(FakeLog()))
    (tmp_path / "witness" / "log-key").unlink()
    with pytest.raises(JournalError, match="no log-key"):
        WitnessMemory(tmp_path).view()


def test_split_views_are_kept_the_first_of_each_address(tmp_path: Path) -> None:
    memory = WitnessMemory(tmp_path)
    (tmp_path / "witness").mkdir()
    for one in (split("a:1"), split("b:1"), split("a:1")):
        assert Path(memory.keep(one)).exists()
    assert sorted(one.adapter for one in memory.split_views()) == ["a:1", "b:1"]


@pytest.mark.parametrize("content", ["{}", "", "[" * 100_000, "x" * (MAX_FILE_LEN + 1)])
def test_a_split_view_that_cannot_be_read_keeps_one_adapter_out(
    tmp_path: Path, content: str
) -> None:
    """Else an adapter that shows what cannot be kept would end every agent at its next start."""
    memory = WitnessMemory(tmp_path, adapters=("a:1", "b:1"))
    Path(memory.keep(split("a:1"))).write_text(content)
    memory.keep(split("gone:1"))
    assert memory.distrusted() == {"a:1", "gone:1"}
    assert [one.adapter for one in memory.split_views()] == ["gone:1"]


@pytest.mark.parametrize("name", ["checkpoint", "log-key"])
def test_what_cannot_be_read_while_it_runs_does_not_end_it(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    memory = WitnessMemory(tmp_path)
    (tmp_path / "witness" / name).mkdir(parents=True)
    memory.remember(seen_by(FakeLog()))
    assert "witness.not_kept" in capsys.readouterr().err


def test_the_command_prints_what_is_kept(ca: TestCa) -> None:
    """In a pod there is neither a shell nor tar: this is how the proof leaves it. A process of its
    own, since it changes its umask and more.
    """
    with home(ca, 1) as place:
        place.journal.mkdir()
        WitnessMemory(place.journal).keep(split("a:1"))
        command = [sys.executable, "-m", "capsign_agent", "--config", str(place.write())]
        printed = subprocess.run([*command, "--split-views"], check=True, capture_output=True)
    assert SplitView.parse(printed.stdout) == split("a:1")


def test_a_disk_that_takes_nothing_is_no_reason_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "witness").write_text("in the way")
    WitnessMemory(tmp_path).keep(split("a:1"))
    assert "witness.not_kept" in capsys.readouterr().err
