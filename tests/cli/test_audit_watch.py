"""`capsign audit watch`: what comes is shown once, in order, from one run to the next."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from capsign_adapter.store.sqlite import SqliteStore, create_sqlite
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit.watch import follow
from capsign_cli.failures import CliError
from capsign_evidence.archive.selection import Selection, select
from support.evidence_at_rest import T0, MemoryArchive, refused, signed
from support.log_files import as_files


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def store(tmp_path):
    create_sqlite(tmp_path / "store.db")
    opened = SqliteStore(tmp_path / "store.db")
    opened.append([signed(number) for number in range(3)], T0)
    yield opened
    opened.close()


@pytest.fixture(params=["store", "files"])
def growing(store, tmp_path, request):
    """The same log as a store and as files: where it is, and what makes it grow."""
    file = tmp_path / "store.db"
    place = file if request.param == "store" else as_files(file, tmp_path / "log")

    def grow(*entries):
        store.append(list(entries), T0)
        if place != file:
            as_files(file, place)

    return place, grow


def run(*arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "watch", *map(str, arguments)])
    out = capsys.readouterr()
    return ended.value.code, out.out, out.err


def shown(*arguments, capsys):
    code, out, err = run(*arguments, "--once", "-o", "json", capsys=capsys)
    assert (code, err) == (0, ""), err
    return [json.loads(line)["index"] for line in out.splitlines()]


def test_a_cursor_goes_on_where_the_last_run_ended(growing, tmp_path, capsys):
    (place, grow), cursor = growing, tmp_path / "cursor"
    assert shown(place, "--cursor", cursor, "--from-leaf", 1, capsys=capsys) == [1, 2]
    assert cursor.read_text() == "3\n"
    assert shown(place, "--cursor", cursor, capsys=capsys) == []
    grow(signed(4), refused(5))
    assert shown(place, "--cursor", cursor, capsys=capsys) == [3, 4]
    grow(refused(6), signed(7))
    asked = [place, "--cursor", cursor, "--outcome", "refused"]
    assert shown(*asked, capsys=capsys) == [5]
    assert cursor.read_text() == "7\n"


def test_a_new_cursor_is_there_before_anything_was_shown(growing, tmp_path, capsys):
    """The next run began at the end again, and what came between the two was never shown."""
    (place, grow), cursor = growing, tmp_path / "cursor"
    assert shown(place, "--cursor", cursor, capsys=capsys) == []
    assert cursor.read_text() == "3\n"
    grow(signed(4))
    assert shown(place, "--cursor", cursor, "--read-all", capsys=capsys) == [3]


def test_without_either_it_begins_at_the_end(growing, capsys):
    assert shown(growing[0], capsys=capsys) == []


@pytest.mark.parametrize(("text", "said"), [("9", "ends at leaf 3"), ("x", "no cursor")])
def test_a_cursor_of_another_archive_or_none_is_refused(store, tmp_path, text, said, capsys):
    (tmp_path / "cursor").write_text(text)
    options = [tmp_path / "store.db", "--cursor", tmp_path / "cursor"]
    code, out, err = run(*options, "--once", capsys=capsys)
    assert (code, out) == (2, "")
    assert said in err


def test_it_shows_what_comes_and_stops_at_a_log_that_shrank():
    archive = MemoryArchive([signed(number) for number in range(600)])
    growth = iter([3, 0, 2, -5])

    def wait():
        change = next(growth)
        size = len(archive.held)
        archive.held[size:] = [signed(size + number) for number in range(max(0, change))]
        del archive.held[size + change :]

    seen: list[tuple[int, list[int]]] = []

    def watch() -> None:
        for leaf, events in follow(archive, Selection(), None, wait):
            seen.append((leaf, [event.index for event in events]))

    with pytest.raises(CliError, match="shrunk from 605 to 600"):
        watch()
    assert seen == [(603, [600, 601, 602]), (605, [603, 604])]
    selection = Selection(select({"outcome": ["refused"]}))
    assert [list(events) for _, events in follow(archive, selection, 0, None)] == [[]]


def test_ctrl_c_ends_it_behind_what_was_shown(store, tmp_path):
    """Whoever follows a log ends it that way: a sentence and the exit code of an interrupt."""
    place, cursor = tmp_path / "store.db", tmp_path / "cursor"
    command = [sys.executable, "-m", "capsign_cli", "audit", "watch", str(place)]
    options = ["--from-leaf", "1", "--cursor", str(cursor), "-o", "json"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        shown = [json.loads(process.stdout.readline())["index"] for _ in range(2)]
        process.send_signal(signal.SIGINT)
        left, said = process.communicate(timeout=60)
    assert (shown, left, process.returncode) == ([1, 2], "", 130)
    assert json.loads(said)["error"]["reason"] == "INTERRUPTED"
