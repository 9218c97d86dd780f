"""Structured logs: one JSON object a line on standard error.

A line has `time` (UTC, RFC 3339, milliseconds), `level`, `event`, `process`, then typed attributes.
An event is a fixed name in the code, its attributes are numbers, enumerations and identities: never
a sentence from a caller, a message, a digest or a token. Text is cut at 256 characters, so a line
is bounded. `docs/operations/telemetry.md` says how to read them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
import sys
import threading
import time
from typing import TextIO

Attribute = str | int | float | bool | bytes | None

MAX_TEXT = 256
"""Longest text attribute, characters; the rest is cut."""

MAX_ATTRIBUTES = 16
"""Most attributes of one event."""

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_NAME = re.compile(r"[a-z][a-z0-9]*([._][a-z0-9]+)*")
_RESERVED = frozenset({"time", "level", "event", "process"})


class _Sink:
    """Where lines go. One lock, one write a line: lines of two threads never mix."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process = "capsign"
        self.threshold = LEVELS["info"]
        self.stream: TextIO | None = None

    def emit(self, level: str, name: str, attributes: dict[str, Attribute]) -> None:
        if LEVELS[level] < self.threshold:
            return
        line = _line(level, name, self.process, attributes)
        # A log that nobody reads any more must not end the process that writes it; evidence does
        # not go this way.
        with self.lock, contextlib.suppress(OSError, ValueError):
            stream = self.stream or sys.stderr
            stream.write(line)
            stream.flush()


_sink = _Sink()


def configure(process: str, *, level: str = "info", stream: TextIO | None = None) -> None:
    """Name this process, set the least level, and take over what libraries log (their texts are
    dropped, see `_Libraries`).
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}")
    _sink.process, _sink.threshold, _sink.stream = process, LEVELS[level], stream
    root = logging.getLogger()
    root.handlers = [_Libraries()]
    root.setLevel(logging.WARNING)


def debug(name: str, **attributes: Attribute) -> None:
    """Log an event for developers."""
    _sink.emit("debug", name, attributes)


def event(name: str, **attributes: Attribute) -> None:
    """Log an expected event."""
    _sink.emit("info", name, attributes)


def warning(name: str, **attributes: Attribute) -> None:
    """Log an event that an operator should look at during working hours."""
    _sink.emit("warning", name, attributes)


def error(name: str, cause: BaseException | None = None, **attributes: Attribute) -> None:
    """Log an event that an operator should look at now. Of `cause` its class, reason and place are
    logged, never its text.
    """
    _sink.emit("error", name, {**_about(cause), **attributes})


def _about(cause: BaseException | None) -> dict[str, Attribute]:
    if cause is None:
        return {}
    about: dict[str, Attribute] = {"cause": type(cause).__qualname__}
    # Where nobody has loaded failures there are none: a process without gRPC logs without it.
    failures = sys.modules.get("capsign_wire.failures")
    if failures is not None and isinstance(cause, failures.FailureError):
        about["reason"] = cause.row.name
    trace = cause.__traceback__
    if trace is not None:
        while trace.tb_next is not None:
            trace = trace.tb_next
        code = trace.tb_frame.f_code
        about["at"] = f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
    return about


def _line(level: str, name: str, process: str, attributes: dict[str, Attribute]) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "an event is named in the code: lower-case words with '.' or '_' between them"
        )
    if len(attributes) > MAX_ATTRIBUTES or not _RESERVED.isdisjoint(attributes):
        raise ValueError(
            f"an event takes at most {MAX_ATTRIBUTES} attributes, none of them "
            f"{', '.join(sorted(_RESERVED))}"
        )
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    record: dict[str, Attribute] = {
        "time": stamp,
        "level": level,
        "event": name,
        "process": process,
    }
    for key, value in attributes.items():
        record[key] = _bounded(value)
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def _bounded(value: Attribute) -> Attribute:
    if isinstance(value, bytes):
        return value[:32].hex()
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity and no NaN
    if value is None or isinstance(value, int | float):
        return value
    raise TypeError(
        f"a log attribute is text, a number, a boolean or bytes, not {type(value).__name__}"
    )


class _Libraries(logging.Handler):
    """What libraries log, as events: logger, function and exception class. Their texts may quote a
    request, so they stay out.
    """

    def emit(self, record: logging.LogRecord) -> None:
        level = "error" if record.levelno >= logging.ERROR else "warning"
        cause = record.exc_info[1] if record.exc_info else None
        attributes: dict[str, Attribute] = {
            "logger": record.name,
            "function": record.funcName,
            **_about(cause),
        }
        _sink.emit(level, "library.log", attributes)
