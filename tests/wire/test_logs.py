"""One JSON object a line, bounded, and no text that a caller could choose."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest
from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    written = io.StringIO()
    logs.configure("test", stream=written)
    yield written
    logs.configure("capsign")
    root.handlers, root.level = handlers, level


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line(stream):
    logs.event("batch.sent", size=3, ratio=0.5, ok=True, digest=b"\x01" * 40, none=None)
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert (line.pop("level"), line.pop("event"), line.pop("process")) == (
        "info",
        "batch.sent",
        "test",
    )
    assert line == {"size": 3, "ratio": 0.5, "ok": True, "digest": "01" * 32, "none": None}


def test_text_is_bounded_and_stays_on_its_line(stream):
    logs.warning("a.b", text="x\ny\x1b[2J" + "z" * 10_000)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert len(lines(stream)[0]["text"]) == logs.MAX_TEXT


def test_levels(stream):
    logs.debug("hidden")
    logs.configure("test", level="error", stream=stream)
    logs.warning("hidden")
    logs.error("seen")
    assert [line["event"] for line in lines(stream)] == ["seen"]
    with pytest.raises(ValueError, match="level"):
        logs.configure("test", level="loud")


def test_an_error_gives_its_class_reason_and_place_but_not_its_text(stream):
    try:
        raise FailureError(failures_pb2.REASON_HANDLE_EXPIRED, "secret-looking text")
    except FailureError as error:
        logs.error("call.failed", error, count=1)
    (line,) = lines(stream)
    assert (line["cause"], line["reason"], line["count"]) == ("FailureError", "HANDLE_EXPIRED", 1)
    assert line["at"].startswith("test_logs.py:")
    assert "secret" not in stream.getvalue()


def test_libraries_cannot_write_what_they_quote(stream):
    try:
        raise ValueError("the token was abc")
    except ValueError:
        logging.getLogger("grpc._server").exception(
            "Exception calling application: %s", "the message was m"
        )
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["cause"]) == (
        "library.log",
        "grpc._server",
        "ValueError",
    )
    assert "abc" not in stream.getvalue()
    assert "message was" not in stream.getvalue()


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a\nb", "a.", ".a", "ä"])
def test_event_names_are_fixed_words(stream, name):
    with pytest.raises(ValueError, match="named in the code"):
        logs.event(name)


def test_misuse_is_refused(stream):
    with pytest.raises(ValueError, match="attributes"):
        logs.event("a", **{f"k{index}": index for index in range(logs.MAX_ATTRIBUTES + 1)})
    with pytest.raises(ValueError, match="attributes"):
        logs.event("a", level="x")
    with pytest.raises(TypeError, match="not dict"):
        logs.event("a", value={})


def test_floats_that_json_lacks(stream):
    logs.event("a", high=float("inf"), odd=float("nan"))
    assert lines(stream)[0]["high"] == "inf"


def test_a_closed_stream_ends_nothing(stream):
    stream.close()
    logs.event("a")
    logs.configure("test", stream=io.StringIO())


def test_lines_of_threads_do_not_mix(stream):
    def write(number):
        for _ in range(50):
            logs.event("a", number=number, text="x" * 200)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 200
