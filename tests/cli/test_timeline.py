"""`capsign audit timeline` and `receipt` on a real store, and a made-up day in the terminal."""

from __future__ import annotations

import json

import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit.event_lines import text_of
from capsign_cli.audit.timeline_data import GROUPS, Row, Timeline
from capsign_cli.audit.timeline_events import rows_of
from capsign_cli.audit.timeline_page import render
from capsign_cli.audit.timeline_receipts import covering
from capsign_cli.audit.timeline_text import FINE, PLAIN, lanes_of, lines
from capsign_evidence.archive.events import Event, described
from capsign_evidence.note import VerifierKey
from capsign_evidence.receipt import verify_receipt
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import AdapterRig, now_ms
from support.log_files import as_files
from support.timelines import HOSTILE, MISUSE_AT, made_up


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def rig(tmp_path):
    """An adapter's parts that have signed and refused, and have made a checkpoint."""
    made = AdapterRig(tmp_path / "store")
    made.sign(*(b"message %d" % number for number in range(20)))
    made.sign(b"refused", context=signing_pb2.ContextSuffix(role="nobody"))
    made.checkpoints.current(now_ms())
    yield made
    made.close()


@pytest.fixture(params=["store", "files"])
def run(rig, tmp_path, capsys, request):
    """Runs a command on the store, or on the log as files."""
    place = str(rig.url).removeprefix("sqlite://")
    if request.param == "files":
        note = rig.checkpoints.current(now_ms()).note
        place = str(as_files(place, tmp_path / "log", note))

    def command(name, *arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", name, place, *map(str, arguments)])
        out = capsys.readouterr()
        return ended.value.code, out.out, out.err

    return command


def paint(text, _):
    return text


def test_the_page_of_a_store(run, rig, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = run("timeline", "--html", page)
    assert (code, out) == (0, f"Wrote {page}.\n")
    text = page.read_text()
    assert "capsign.test/log" in text
    assert [file.name for file in tmp_path.iterdir() if "page" in file.name] == ["page.html"]


def test_the_terminal_and_json_have_every_row(run, rig):
    code, out, _ = run("timeline", "--by", "grant")
    assert code == 0
    assert "orders-jwt" in out
    code, out, _ = run("timeline", "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert told["groups"]["signed"] == 20
    drawn = sum(sum(lane["counts"]) for lane in told["lanes"])
    marks = sum(map(sum, told["marks"].values()))
    assert drawn + marks == told["rows"] == sum(told["groups"].values())


def test_more_than_is_shown_is_refused_and_not_cut(run):
    code, _, err = run("timeline", "--rows", 3, "-o", "json")
    assert code == 2
    assert json.loads(err)["error"]["reason"] == "TOO_MANY"


def test_a_receipt_from_a_store_verifies(run, rig, tmp_path):
    key = VerifierKey.parse(rig.checkpoints.verifier_key)
    code, out, _ = run("receipt", 5, "--to", tmp_path / "proofs", "-o", "json")
    assert code == 0
    entry, proof = (tmp_path / "proofs" / f"5.{end}" for end in ("entry", "tlog-proof"))
    assert json.loads(out)["files"] == [str(entry), str(proof)]
    index, head = verify_receipt(proof.read_bytes(), entry.read_bytes(), key)
    assert (index, head.size) == (5, rig.store.control().tree_size)
    code, _, err = run("receipt", 5000, "-o", "json")
    assert code == 4
    assert json.loads(err)["error"]["reason"] == "NOT_COVERED"


def event(what="signed", **fields):
    return Event(**({"index": 7, "time_ms": 1000, "stream": "adapter", "what": what} | fields))


@pytest.mark.parametrize(
    ("told", "group", "what"),
    [
        (event(), "signed", "signed"),
        (event("admin", act="key-version-revoked"), "revocation", "key-version-revoked"),
        (event("admin", act="policy-applied"), "act", "policy-applied"),
        (event("incident", subject="silence", act="ended"), "incident", "silence ended"),
        (event("unreadable"), "incident", "unreadable"),
        (event("never"), "unhappened", "never"),
        (event("outcome", stream="agent", outcome="refused"), "refused", "outcome"),
        (event("outcome", stream="agent", outcome="done"), "record", "outcome"),
        (event("a-kind-of-tomorrow"), "record", "a-kind-of-tomorrow"),
    ],
)
def test_events_have_groups(told, group, what):
    (row,) = rows_of([told])
    assert (row.group, row.what) == (group, what)
    assert row.group in GROUPS


def test_a_refusal_that_both_tell_counts_once():
    intent = bytes(range(16))
    adapters = event("refused", intent_id=intent, outcome="refused")
    agents = event("outcome", stream="agent", intent_id=intent, outcome="refused")
    own = event("outcome", stream="agent", intent_id=bytes(16), outcome="refused")
    groups = [row.group for row in rows_of([adapters, agents, own])]
    assert groups == ["refused", "record", "refused"]


def test_a_row_and_a_line_say_what_only_its_kind_has():
    told = event("split-view", details={"log_fault": "shrunk", "seen_size": 12, "seen": {"x": 0}})
    (row,) = rows_of([told])
    assert row.texts["detail"] == "log_fault shrunk, seen_size 12"
    assert text_of(described(told)).endswith("log_fault=shrunk  seen_size=12")


def test_lanes_lose_no_row():
    day = made_up()
    lanes = lanes_of(day.rows, "workload", 80)
    drawn = sum(sum(lane.counts) for lane in lanes.lanes) + sum(map(sum, lanes.marks.values()))
    assert drawn == len(day.rows)
    assert lanes.marks["incident"][int((MISUSE_AT - lanes.first_ms) / lanes.column_ms)] == 1


@pytest.mark.parametrize("width", [60, 100, 250])
@pytest.mark.parametrize("ramp", [FINE, PLAIN])
def test_lines_keep_the_width_and_say_what_stands_out(width, ramp):
    text = list(lines(made_up(), "workload", width, ramp, paint))
    lanes = text[2 : text.index("What stands out") - 1]
    assert all(len(line) <= width for line in lanes)
    assert any("signed-not-reported" in line for line in text)
    if ramp == PLAIN:
        assert "\n".join(lanes).isascii()


def test_nothing_and_one_row_have_a_timeline_too():
    empty = Timeline("log", 0, "", "", "", "", [])
    assert list(lines(empty, "workload", 80, PLAIN, paint)) == ["Nothing matches."]
    assert "No incident" in render(empty)
    one = Timeline("log", 1, "", "", "", "", [Row(5, 0, "signed", {"what": "signed"})])
    assert "no workload" in "\n".join(lines(one, "workload", 80, PLAIN, paint))


def test_what_a_log_says_is_text_in_the_page():
    text = render(made_up(50))
    assert HOSTILE not in text
    assert text.count("<script") == 3
    assert "default-src &#x27;none&#x27;" in text


def test_control_characters_do_not_reach_a_terminal():
    """Nor does a line that a log made up look like one of ours."""
    evil = "policy\x1b[2J\napplied"
    rows = [
        Row(5, 0, "act", {"what": evil, "target": evil, "actor": evil}),
        Row(6, 1, "signed", {"workload": evil, "key": evil}),
    ]
    made = Timeline(evil, 2, "", "", "", "", rows)
    for by in ("workload", "key", "tenant"):
        text = list(lines(made, by, 80, PLAIN, paint))
        assert "\x1b" not in "".join(text)
        assert not any("\n" in line for line in text)


def test_a_time_that_no_calendar_has_has_a_place():
    """An agent's clock may say anything of 64 bits: the page and the terminal ended with it."""
    late = Event(index=1, time_ms=(1 << 64) - 1, stream="agent", what="outcome")
    rows = [Row(5, 0, "act", {"what": "begun"}), *rows_of([late])]
    made = Timeline("log", 2, "", "", "", "", rows)
    assert "9999-12-31" in "\n".join(lines(made, "key", 80, PLAIN, paint))
    assert str((1 << 64) - 1) in rows[1].texts["detail"]
    assert "9999-12-31" in made.span()
    assert render(made)


def test_of_the_checkpoints_that_cover_a_leaf_the_cosigned_one_is_taken():
    def note(size, signatures):
        lines_of = "".join(f"\u2014 {name} AAAAAAAA\n" for name in signatures)
        return f"log\n{size}\n{'A' * 43}=\n\n{lines_of}".encode()

    newest, cosigned = note(9, ["log"]), note(7, ["log", "witness"])
    assert covering([newest, cosigned], 6) == cosigned
    assert covering([newest, cosigned], 7) == newest
    assert covering([newest, cosigned], 9) is None


def test_a_line_stays_one_line(capsys):
    output.line({}, "signed\nrefused\x1b[1m")
    output.rows("things", [{"a": "one\ntwo"}], ("a",), empty="")
    assert capsys.readouterr().out.splitlines()[0] == "signed\\x0arefused\\x1b[1m"
    output.record({"a": "one\ntwo"})
    assert len(capsys.readouterr().out.splitlines()) == 2
