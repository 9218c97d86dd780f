"""What one value of a message may be: how large a number, how long a text, of what characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from capsign_wire.advice import Given
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import bounds_pb2, failures_pb2

FORMATS: dict[int, tuple[re.Pattern[str], str]] = {
    bounds_pb2.FORMAT_UNSPECIFIED: (re.compile(r"[\x20-\x7e]*"), "printable ASCII"),
    bounds_pb2.FORMAT_NAME: (
        re.compile(r"[a-z0-9][a-z0-9._-]*"),
        "lower-case letters, digits, '.', '_' and '-'",
    ),
    bounds_pb2.FORMAT_SPIFFE_ID: (
        re.compile(r"spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+"),
        "a SPIFFE ID",
    ),
    bounds_pb2.FORMAT_OPAQUE: (re.compile(r"[A-Za-z0-9_-]*"), "base64url characters"),
    bounds_pb2.FORMAT_TRACEPARENT: (
        re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
        "a W3C traceparent",
    ),
}


class BoundError(Exception):
    """A broken bound. Each level of the message adds its part to the path as the exception passes
    it, so that valid messages need no paths.
    """

    def __init__(
        self, reason: failures_pb2.Reason.ValueType, text: str, given: Given | None = None
    ) -> None:
        super().__init__(text)
        self.reason = reason
        self.given = given
        self.text = text
        self.path = ""

    def within(self, part: str) -> BoundError:
        dot = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{part}{dot}{self.path}"
        return self

    def failure(self) -> FailureError:
        text = self.text.replace("{path}", self.path)
        return FailureError(self.reason, text, field=self.path, given=self.given)


malformed = partial(BoundError, failures_pb2.REASON_INPUT_MALFORMED)
too_large = partial(BoundError, failures_pb2.REASON_INPUT_TOO_LARGE)


@dataclass(frozen=True, slots=True)
class Number:
    """The largest value of a number."""

    most: int

    def __call__(self, value: int) -> None:
        if value > self.most:
            raise too_large(f"The field {{path}} is above {self.most}.", Given.NUMBER)


@dataclass(frozen=True, slots=True)
class Length:
    """What the length of a value may be, and what a string must match. Called with a value, it
    raises if that breaks it.
    """

    least: int
    most: int
    matches: Callable[[str], object] | None
    may_be_empty: bool
    wording: str
    """What it must match, in words."""
    given: Given = Given.TEXT

    def __call__(self, value: Any) -> None:
        size = len(value)
        if size == 0 and self.may_be_empty:
            return
        if size > self.most:
            raise too_large(
                f"The field {{path}} is {size} bytes long; at most {self.most} are taken.",
                self.given,
            )
        if size < self.least:
            raise malformed(f"The field {{path}} is {size} bytes long; it needs {self.least}.")
        if self.matches is not None and not self.matches(value):
            raise malformed(f"The field {{path}} must be {self.wording}.")
