"""`capsign audit export`: what goes in comes out, at least once, wherever it is ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count

import duckdb
import grpc
import pytest
from capsign_cli import __main__ as cli
from capsign_cli import output
from capsign_cli.audit.export_cursor import Cursor, CursorFile
from capsign_cli.audit.export_endpoint import Endpoint
from capsign_cli.audit.export_ocsf import ocsf, uid_of
from capsign_cli.audit.export_parquet import COLUMNS, ParquetSink
from capsign_cli.audit.export_run import Export, Patience
from capsign_cli.audit.export_sinks import LinesSink, SinkBusyError
from capsign_cli.audit.export_transport import HttpTransport
from capsign_cli.failures import CliError
from capsign_evidence.archive import ArchiveError, open_archive
from capsign_evidence.archive.events import Event
from capsign_evidence.archive.reading import events
from capsign_evidence.archive.selection import Selection
from capsign_wire.telemetry import Metrics
from google.protobuf import any_pb2
from google.rpc import status_pb2
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from support.adapter_rig import AdapterRig, now_ms
from support.evidence_at_rest import APP, MemoryArchive, batch, record, refused, signed
from support.otlp_logs import grpc_receiver, http_receiver

ORIGIN = "capsign.test/log"
EVERYTHING = Selection()


@pytest.fixture(autouse=True)
def _tables_again():
    yield
    output.start([])


@pytest.fixture
def rig(tmp_path):
    made = AdapterRig(tmp_path / "store")
    made.sign(*(b"message %d" % number for number in range(60)))
    made.checkpoints.current(now_ms())
    yield made
    made.close()


@pytest.fixture
def place(rig):
    return str(rig.url).removeprefix("sqlite://")


@pytest.fixture
def run(place, capfd):
    def command(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["audit", "export", place, *map(str, arguments)])
        out = capfd.readouterr()
        return ended.value.code, out.out, out.err

    return command


def expected(place):
    """The ids of everything that the command exports if nobody selects."""
    with open_archive(place) as archive:
        return [uid_of(ORIGIN, one) for one in events(archive) if one.what != "agent-batch"]


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def reason(err):
    return json.loads(err.strip().splitlines()[-1])["error"]["reason"]


def test_everything_is_a_line_on_standard_output(run, place):
    code, out, _ = run()
    assert code == 0
    assert [one["metadata"]["uid"] for one in lines(out)] == expected(place)
    code, out, _ = run("--format", "jsonl", "--what", "signed")
    assert code == 0
    assert {one["what"] for one in lines(out)} == {"signed"}
    assert len(lines(out)) == 60


def test_the_same_command_goes_on_where_the_last_one_ended(run, place, rig, tmp_path):
    to, cursor = tmp_path / "events.jsonl", tmp_path / "cursor"
    assert run("--to", to, "--cursor", cursor)[0] == 0
    assert run("--to", to, "--cursor", cursor)[0] == 0
    assert [one["metadata"]["uid"] for one in lines(to.read_text())] == expected(place)
    rig.sign(b"one more")
    assert run("--to", to, "--cursor", cursor)[0] == 0
    assert [one["metadata"]["uid"] for one in lines(to.read_text())] == expected(place)
    assert json.loads(cursor.read_text())["leaf"] == rig.store.control().tree_size
    assert to.stat().st_mode & 0o077 == 0


def test_a_directory_of_tiles_has_the_same_events_as_the_store(run, place, rig, tmp_path, capfd):
    """And an export that was begun with one goes on with the other."""
    tiles, cursor = tmp_path / "tiles", tmp_path / "cursor"
    key = rig.checkpoints.verifier_key
    begun = tmp_path / "begun.jsonl"
    assert run("--to", begun, "--cursor", cursor)[0] == 0
    rig.sign(b"one more")
    rig.checkpoints.current(now_ms())
    with pytest.raises(SystemExit) as ended:
        cli.main(["log", "export", str(tiles), "--archive", place, "--log-key", key])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "export", str(tiles), "--to", str(begun), "--cursor", str(cursor)])
    capfd.readouterr()
    assert ended.value.code == 0
    assert [one["metadata"]["uid"] for one in lines(begun.read_text())] == expected(place)
    with pytest.raises(SystemExit) as ended:
        cli.main(["audit", "timeline", str(tiles), "-o", "json"])
    assert json.loads(capfd.readouterr().out)["groups"]["signed"] == 61


def test_a_line_of_ours_that_was_cut_off_is_written_again_in_whole(run, place, rig, tmp_path):
    to, cursor = tmp_path / "events.jsonl", tmp_path / "cursor"
    assert run("--to", to, "--cursor", cursor)[0] == 0
    whole = to.read_text()
    rig.sign(b"one more")
    held = cursor.read_text()
    assert run("--to", to, "--cursor", cursor)[0] == 0
    written = to.read_text()
    for kept in (1, 100, len(written) - len(whole) - 1):
        to.write_text(written[: len(whole) + kept])
        cursor.write_text(held)  # the machine stopped while the line was written
        assert run("--to", to, "--cursor", cursor)[0] == 0
        assert to.read_text() == written


@pytest.mark.parametrize("theirs", ['{"torn": ' + "x" * 100_000, "a note without an end", "{"])
def test_what_others_wrote_is_not_taken_away(run, place, tmp_path, theirs):
    """A file whose last line has no end lost that line, whoever had written it."""
    to = tmp_path / "events.jsonl"
    to.write_text('{"whole": 1}\nanother' + theirs)
    assert run("--to", to)[0] == 0
    first, second, *ours = to.read_text().splitlines()
    assert (first, second) == ('{"whole": 1}', "another" + theirs)
    assert len(ours) == len(expected(place))


def test_a_cursor_is_good_for_one_export_of_one_log(run, rig, tmp_path):
    to, cursor = tmp_path / "events.jsonl", tmp_path / "cursor"
    run("--to", to, "--cursor", cursor)
    code, _, err = run("--to", to, "--cursor", cursor, "--format", "jsonl", "-o", "json")
    assert (code, reason(err)) == (2, "OTHER_CURSOR")
    code, _, err = run("--to", to, "--cursor", cursor, "--origin", "another", "-o", "json")
    assert (code, reason(err)) == (2, "OTHER_CURSOR")
    held = json.loads(cursor.read_text())
    for change, told in (({"leaf": 5000}, "ROLLED_BACK"), ({"last_hash": "00"}, "REWRITTEN")):
        cursor.write_text(json.dumps(held | change))
        code, _, err = run("--to", to, "--cursor", cursor, "-o", "json")
        assert (code, reason(err)) == (1, told)


def test_two_hours_ago_is_the_same_time_after_an_outage(run, rig, tmp_path, monkeypatch):
    """The next run was a day later: what happened up to two hours before it was passed over."""
    to, cursor = tmp_path / "events.jsonl", tmp_path / "cursor"
    options = ("--to", to, "--cursor", cursor, "--since", "2h", "--format", "jsonl")
    assert run(*options)[0] == 0
    rig.sign(b"during the outage")
    later = time.time() + 86_400
    monkeypatch.setattr("time.time", lambda: later)
    assert run(*options)[0] == 0
    assert [one["what"] for one in lines(to.read_text())].count("signed") == 61
    code, _, err = run(*options, "--until", "1h", "-o", "json")
    assert (code, reason(err)) == (2, "OTHER_CURSOR")


def test_what_is_later_than_the_first_end_is_said_to_be_left_out(run, rig, tmp_path, monkeypatch):
    options = ("--cursor", tmp_path / "cursor", "--until", "0s")
    assert run(*options)[0] == 0
    later = time.time() + 3600
    monkeypatch.setattr("time.time", lambda: later)
    code, out, err = run(*options)
    assert (code, out) == (0, "")
    assert "later needs another cursor" in err


def test_the_times_are_kept_before_anything_was_taken(run, place, tmp_path, monkeypatch):
    cursor = tmp_path / "cursor"
    with grpc_receiver() as (endpoint, received):
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--cursor", cursor)
        options += ("--since", "2h", "--give-up", "0")
        received.answer = lambda _: grpc.StatusCode.UNAVAILABLE
        assert run(*options)[0] == 4
        later = time.time() + 86_400
        monkeypatch.setattr("time.time", lambda: later)
        received.answer = lambda _: None
        assert run(*options)[0] == 0
        assert received.uids() == expected(place)


def test_a_file_that_is_rotated_loses_nothing(rig, place, tmp_path):
    """What was written after it was moved away went to a file that nobody reads any more."""
    to, moved = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    sink = LinesSink(to, lambda event: {"leaf": event.index})
    with open_archive(place) as archive:
        one, two, *_ = events(archive)
    sink.take([one], (0, 0))
    to.rename(moved)
    sink.take([two], (1, 0))
    to.unlink()
    sink.take([two], (1, 0))
    sink.close()
    assert [lines(moved.read_text()), lines(to.read_text())] == [
        [{"leaf": one.index}],
        [{"leaf": two.index}],
    ]


@pytest.mark.parametrize("receiver", [grpc_receiver, http_receiver])
def test_a_receiver_of_otlp_has_every_event(run, place, receiver, monkeypatch, tmp_path):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    protocol = "grpc" if receiver is grpc_receiver else "http/protobuf"
    cursor = tmp_path / "cursor"
    with receiver() as (endpoint, received):
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--protocol", protocol)
        assert run(*options, "--cursor", cursor)[0] == 0
        assert received.uids() == expected(place)
        sent = {name.lower(): value for name, value in received.headers[0].items()}
        assert sent["authorization"] == "Bearer abc"
        body = received.records[-1].body.kvlist_value.values
        assert {"class_uid", "metadata", "unmapped"} <= {one.key for one in body}
        assert run(*options, "--cursor", cursor)[0] == 0
        assert received.requests == 1


@pytest.mark.parametrize(
    ("receiver", "busy", "never"),
    [
        (grpc_receiver, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED),
        (http_receiver, 503, 401),
    ],
)
def test_a_busy_receiver_is_asked_again_and_one_that_refuses_is_not(
    run, place, receiver, busy, never, tmp_path
):
    protocol = "grpc" if receiver is grpc_receiver else "http/protobuf"
    cursor = tmp_path / "cursor"
    with receiver() as (endpoint, received):
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--protocol", protocol)
        options += ("--cursor", cursor, "-o", "json")
        received.answer = lambda _: never
        code, _, err = run(*options)
        assert (code, reason(err), received.requests) == (1, "SINK_REFUSED", 1)
        assert json.loads(cursor.read_text())["leaf"] == 0
        received.answer = lambda number: busy if number == 1 else None
        assert run(*options)[0] == 0
        assert received.uids() == expected(place)


def test_a_connection_that_the_receiver_has_ended_is_no_failure():
    """Collectors close what was idle for a minute: every batch after a quiet one was told of as a
    failure of the receiver, and waited.
    """
    with http_receiver() as (endpoint, received):
        received.ends = True
        send = HttpTransport(Endpoint(endpoint, 30))
        for _ in range(3):
            send(logs_service_pb2.ExportLogsServiceRequest())
        send.close()
        assert received.requests == 3


def test_records_that_a_receiver_rejects_are_not_passed_over(run, tmp_path):
    cursor = tmp_path / "cursor"
    with grpc_receiver() as (endpoint, received):
        received.answer = lambda _: 3
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--cursor", cursor)
        code, _, err = run(*options, "-o", "json")
        assert (code, reason(err)) == (1, "REJECTED")
        assert json.loads(cursor.read_text())["leaf"] == 0


@pytest.mark.parametrize("receiver", [grpc_receiver, http_receiver])
def test_a_batch_that_is_too_large_is_halved(run, place, receiver):
    protocol = "grpc" if receiver is grpc_receiver else "http/protobuf"
    with receiver(20_000) as (endpoint, received):
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--protocol", protocol)
        assert run(*options)[0] == 0
        assert received.uids() == expected(place)
        assert max(received.sizes) > 1


@pytest.mark.parametrize("receiver", [grpc_receiver, http_receiver])
def test_an_event_that_is_too_large_alone_is_named_or_kept_elsewhere(
    run, place, receiver, tmp_path
):
    cursor, aside = tmp_path / "cursor", tmp_path / "aside.jsonl"
    protocol = "grpc" if receiver is grpc_receiver else "http/protobuf"
    with receiver(500) as (endpoint, received):
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--protocol", protocol)
        options += ("--cursor", cursor, "-o", "json")
        code, _, err = run(*options)
        assert (code, reason(err)) == (1, "TOO_LARGE")
        assert expected(place)[0] in err
        assert json.loads(cursor.read_text())["leaf"] == 0
        code, out, err = run(*options, "--set-aside", aside)
        assert (code, json.loads(out)["set_aside"]) == (0, len(expected(place)))
        assert [one["metadata"]["uid"] for one in lines(aside.read_text())] == expected(place)
        assert received.records == []


def test_a_busy_receiver_that_speaks_of_its_resources_loses_nothing(run, place):
    """Not all say by RetryInfo that they are only busy: nothing of usual size is set aside."""
    with grpc_receiver() as (endpoint, received):
        busy = grpc.StatusCode.RESOURCE_EXHAUSTED
        received.answer = lambda number: busy if number < 8 else None
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint)
        assert run(*options)[0] == 0
        assert received.uids() == expected(place)
        received.answer = lambda _: busy
        code, _, err = run(*options, "--give-up", "0", "-o", "json")
        assert (code, reason(err)) == (4, "SINK")


def test_a_receiver_that_says_when_to_come_back_is_not_sent_less(run, place):
    with grpc_receiver() as (endpoint, received):
        info = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo")
        details = status_pb2.Status(code=8, message="later", details=[info])
        received.trailers = (("grpc-status-details-bin", details.SerializeToString()),)
        busy = grpc.StatusCode.RESOURCE_EXHAUSTED
        received.answer = lambda number: busy if number == 0 else None
        assert run("--format", "ocsf-otlp", "--endpoint", endpoint)[0] == 0
        assert received.sizes == [len(expected(place))]


@pytest.mark.parametrize(
    ("variable", "path", "asked"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "", "/v1/logs"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/otlp/", "/otlp/v1/logs"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "/mine", "/mine"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "", "/"),
        (None, "/mine", "/mine"),
        (None, "", "/v1/logs"),
    ],
)
def test_paths_are_those_of_the_specification(run, monkeypatch, variable, path, asked):
    with http_receiver() as (endpoint, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        options = ("--endpoint", endpoint + path) if variable is None else ()
        if variable is not None:
            monkeypatch.setenv(variable, endpoint + path)
        assert run("--format", "ocsf-otlp", *options)[0] == 0
        assert {one["path"] for one in received.headers} == {asked}


def test_ports_are_those_of_the_scheme_and_of_otlp_over_grpc():
    assert Endpoint("https://host", 1).http() == (True, "host", 443, "/v1/logs")
    assert Endpoint("http://host", 1).http() == (False, "host", 80, "/v1/logs")
    assert Endpoint("https://[::1]:4318/a", 1).http() == (True, "::1", 4318, "/a")
    assert Endpoint("https://host", 1).grpc() == (True, "host", 4317)
    assert Endpoint("http://host:443/", 1).grpc() == (False, "host", 443)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://ann:s3cret@host", "https://ann:s3cret@host", "https://host/?token=s3cret"),
        *("https://host:s3cret", "https://", "host:4317", "https://host:0", "http://h:99999"),
    ],
)
def test_what_is_no_endpoint_is_refused_and_no_secret_of_it_is_shown(run, url):
    code, _, err = run("--format", "ocsf-otlp", "--endpoint", url, "-o", "json")
    assert (code, reason(err)) == (2, "ENDPOINT")
    assert "ann:s3cret" not in err
    assert "token=s3cret" not in err


def test_no_secret_of_an_archives_url_is_shown(capfd, tmp_path):
    for command in ("query", "export", "timeline"):
        for place in ("postgressql://ann:s3cret@db/log", "host=db password=s3cret"):
            with pytest.raises(SystemExit):
                cli.main(["audit", command, place])
    message = tmp_path / "message"
    message.write_bytes(b"x")
    url = "postgresql://ann:s3cret@db/log"
    with pytest.raises(SystemExit):
        cli.main(["audit", "query", url, "--message", str(message)])
    shown = capfd.readouterr()
    assert "no store" in shown.err
    assert "audit prove" in shown.err
    assert "s3cret" not in shown.err + shown.out


def test_a_cursor_holds_no_secret(run, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://ann:s3cret@host?key=s3cret")
    cursor = tmp_path / "cursor"
    assert run("--cursor", cursor)[0] == 0
    assert "s3cret" not in cursor.read_text()


def test_a_receiver_that_hangs_has_an_end(run, tmp_path):
    with grpc_receiver() as (endpoint, received):
        received.hang = threading.Event()
        options = ("--format", "ocsf-otlp", "--endpoint", endpoint, "--timeout", "0.2")
        code, _, err = run(*options, "--give-up", "0", "-o", "json")
        assert (code, reason(err)) == (4, "SINK")


def test_parquet_has_one_typed_schema_and_every_event_once(run, place, rig, tmp_path):
    to, cursor = tmp_path / "it's parquet", tmp_path / "cursor"
    options = ("--format", "parquet", "--to", to, "--cursor", cursor)
    assert run(*options)[0] == 0
    held = cursor.read_text()
    rig.sign(b"more", b"and more")
    assert run(*options)[0] == 0
    cursor.write_text(held)  # killed before it was written: the part is made again, in its place
    assert run(*options)[0] == 0
    found = duckdb.connect().read_parquet(str(to / "*.parquet"))
    assert dict(zip(found.columns, map(str, found.types), strict=True)) == COLUMNS
    uids = [uid for (uid,) in found.project("uid").fetchall()]
    assert sorted(uids) == sorted(expected(place))
    orders = found.filter("what = 'signed' AND key = 'orders'")
    ((number, first),) = orders.aggregate("count(*), min(time)").fetchall()
    assert number == 62
    assert first.year >= 2026
    assert not [file for file in to.iterdir() if file.name.startswith(".")]


def parquet_of(events, tmp_path):
    with contextlib.closing(ParquetSink(tmp_path / "parquet", ORIGIN)) as sink:
        sink.take(events, (0, 0))
    return duckdb.connect().read_parquet(str(tmp_path / "parquet" / "*.parquet"))


STEPPED = Event(
    index=1,
    time_ms=1_790_000_000_000,
    stream="adapter",
    what="rollout-step",
    act="rollout-rolled-back",
    details={"verdict": "failed", "after": {"signed": 40, "verify_failed": 10}},
)


def test_parquet_and_ocsf_have_what_only_a_kind_of_events_has(tmp_path):
    """Why a rollout rolled back stood in the log, and in no export of it."""
    found = parquet_of([STEPPED], tmp_path)
    chosen = "details->>'$.verdict', (details->>'$.after.verify_failed')::INTEGER"
    assert found.project(chosen).fetchall() == [("failed", 10)]
    assert ocsf(ORIGIN, STEPPED)["unmapped"]["details"] == dict(STEPPED.details)


def test_parquet_has_a_time_that_no_calendar_has(tmp_path):
    found = parquet_of(
        [Event(index=0, time_ms=(1 << 64) - 1, stream="agent", what="outcome")], tmp_path
    )
    assert found.aggregate("year(max(time))").fetchall() == [(9999,)]


class Flaky:
    """A sink that fails before or after it took something, as it is told."""

    most = 3

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        self.taken: list[str] = []

    def take(self, found, first):
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "busy":
            raise SinkBusyError("not now")
        self.taken += [uid_of(ORIGIN, one) for one in found]
        if fault == "busy after":
            raise SinkBusyError("taken, and the answer was lost")
        if fault == "crash":
            raise ZeroDivisionError

    def close(self) -> None:
        pass


def archive_of(shape: Sequence[int]) -> MemoryArchive:
    """Entries, and of each number above 0 a batch with that many records behind a signature."""
    entries, batches = [], []
    for number, records in enumerate(shape):
        if not records:
            entries.append(signed(number) if number % 3 else refused(number))
            continue
        made = [record(place + 1, "INTENT") for place in range(records)]
        entry, data = batch(made)
        batches.append((len(entries), APP, data))
        entries.append(entry)
    return MemoryArchive(entries, batches)


@given(
    st.lists(st.integers(0, 5), max_size=25),
    st.lists(st.sampled_from(["", "busy", "busy after", "crash"]), max_size=20),
    st.integers(0, 25),
)
def test_whatever_fails_each_event_is_taken_and_none_is_passed_over(shape, faults, held):
    """The process dies at any place, before the cursor is written or after; the log grows between
    two runs.
    """
    archive, sink = archive_of(shape), Flaky(faults)
    whole = archive.held
    wanted = [uid_of(ORIGIN, one) for one in events(archive)]
    cursor = Cursor(ORIGIN, "test")
    for attempt in count():
        archive.held = whole if attempt else whole[:held]
        patience = Patience(0, None, wait=lambda _: None)
        file = CursorFile(None)
        run = Export(archive, EVERYTHING, sink, file, cursor, patience, lambda _: None)
        run.check()
        crashed = False
        try:
            run.once()
        except ZeroDivisionError:
            crashed = True
        cursor = run.cursor
        if attempt and not crashed:
            break
    assert set(sink.taken) == set(wanted)
    assert cursor.leaf <= len(whole) == run.cursor.leaf
    if not faults:
        assert sink.taken == wanted


def test_a_follower_takes_what_comes():
    archive, sink = archive_of([0, 2, 0]), Flaky([])
    whole, archive.held = archive.held, archive.held[:1]

    def wait(_):
        if archive.held is whole:
            raise KeyboardInterrupt
        archive.held = whole

    patience = Patience(5, None, wait=wait)
    cursor = Cursor(ORIGIN, "test")
    run = Export(archive, EVERYTHING, sink, CursorFile(None), cursor, patience, lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        run.follow()
    assert sink.taken == [uid_of(ORIGIN, one) for one in events(archive)]


class Leaving(MemoryArchive):
    """One that cannot be read now and then."""

    away = False

    @property
    def size(self) -> int:
        if self.away:
            raise ArchiveError("It is away.", "Wait.")
        return len(self.held)


def test_a_follower_outlives_a_log_that_is_away_and_a_replica_that_is_behind(tmp_path):
    whole = archive_of([0, 0, 0, 0]).held
    archive, sink, alive = Leaving(whole[:2]), Flaky(["busy"]), tmp_path / "alive"

    def end() -> None:
        raise KeyboardInterrupt

    steps = iter(
        [
            lambda: None,  # the sink was busy
            lambda: setattr(archive, "away", True),
            lambda: vars(archive).update(away=False, held=whole[:1]),  # of another replica
            lambda: setattr(archive, "held", whole),
            end,
        ]
    )
    patience = Patience(5, None, wait=lambda _: next(steps)())
    cursor = Cursor(ORIGIN, "test")
    run = Export(archive, EVERYTHING, sink, CursorFile(None), cursor, patience, lambda _: None)
    metrics = Metrics()
    with pytest.raises(KeyboardInterrupt), run.status.exported(alive, metrics):
        run.follow()
    assert sink.taken == [uid_of(ORIGIN, one) for one in events(archive)]
    seen = metrics.snapshot()
    assert seen["capsign.export.events"] == {(): 4}
    assert seen["capsign.export.failures"] == {("sink",): 1, ("source",): 1}
    assert seen["capsign.export.lag"] == {(): 0}
    assert seen["capsign.export.age"][()] < 600
    assert alive.exists()


def test_leaves_that_were_moved_away_are_not_passed_over():
    archive = archive_of([0, 0, 0])
    archive.first = 2
    cursor = Cursor(ORIGIN, "test")
    run = Export(archive, EVERYTHING, Flaky([]), CursorFile(None), cursor, Patience(0, 0), print)
    with pytest.raises(CliError) as refused_it:
        run.check()
    assert refused_it.value.told.reason == "MOVED_AWAY"


@pytest.mark.system
def test_killed_in_the_middle_it_goes_on_without_a_gap(place, rig, tmp_path):
    """A follower is killed while its receiver holds a batch; the next one brings everything else,
    and a receiver that knows ids by then has each event once.
    """
    for number in range(20):
        rig.sign(*(b"%d of %d" % (number, one) for one in range(100)))
    cursor = tmp_path / "cursor"
    with grpc_receiver() as (endpoint, received):
        command = [sys.executable, "-m", "capsign_cli", "audit", "export", place, "--follow"]
        command += ["--format", "ocsf-otlp", "--endpoint", endpoint, "--cursor", cursor]
        command += ["--poll", "0.1"]
        for _ in range(2):
            received.hang = None
            received.arrived.clear()

            def held(number, upto=received.requests + 1):
                if number >= upto:
                    received.hang = threading.Event()

            received.answer = held
            running = subprocess.Popen(command, stderr=subprocess.PIPE)
            while received.hang is None:
                received.arrived.wait(60)
                received.arrived.clear()
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
            received.hang.set()
        received.hang, received.answer = None, lambda _: None
        rig.sign(b"one that came meanwhile")
        running = subprocess.Popen(command, stderr=subprocess.PIPE)
        wanted = set(expected(place))
        while set(received.uids()) < wanted:
            received.arrived.wait(60)
            received.arrived.clear()
        running.terminate()
        assert running.wait() == 130
    counts = Counter(received.uids())
    assert set(counts) == wanted
    assert sum(counts.values()) >= len(wanted)
