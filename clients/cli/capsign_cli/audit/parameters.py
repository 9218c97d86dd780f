"""Values on the command line that mean a time, an id or a hash."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Self
from uuid import UUID

import click

_AGO = re.compile(r"(\d{1,9})(s|m|h|d)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Ago(int):
    """A time, milliseconds since 1970, that was given as how long ago: `said` as it was given."""

    said: str

    def __new__(cls, time_ms: int, said: str) -> Self:
        """That time, said so."""
        made = super().__new__(cls, time_ms)
        made.said = said
        return made


class Moment(click.ParamType[int]):
    """RFC 3339, or how long ago (Ago): milliseconds since 1970."""

    name = "time"

    def convert(
        self, value: str | int, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if ago := _AGO.fullmatch(value):
            back_ms = int(ago[1]) * _SECONDS[ago[2]] * 1000
            return Ago(int(time.time() * 1000) - back_ms, value)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            self.fail(f"{value!r} is neither a time as 2026-11-30T03:00:00Z nor 90s, 15m, 2h or 7d")
        return int(at.timestamp() * 1000)


class Written(click.ParamType[str]):
    """A text as the log has it. Anything else is wrong use: a question that nothing can answer must
    not look like one to which the answer is nothing.
    """

    def __init__(self, form: str, most: int, example: str) -> None:
        """`form` is a `Format` of `bounds.proto` without its prefix."""
        self.name = form.lower().replace("_", "-")
        self._form, self._most, self._example = form, most, example

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from capsign_wire.bound_values import FORMATS
        from capsign_wire.types.v1 import bounds_pb2

        pattern, words = FORMATS[bounds_pb2.Format.Value(f"FORMAT_{self._form}")]
        if not pattern.fullmatch(value) or len(value) > self._most:
            self.fail(f"{value!r} is not {words}, as {self._example}", param, ctx)
        return value


class Hexadecimal(click.ParamType[bytes]):
    """Bytes of a given length in hexadecimal; 16 bytes also as a UUID."""

    def __init__(self, length: int) -> None:
        self.name = "uuid" if length == 16 else "hash"
        self._length = length

    def convert(
        self, value: str | bytes, param: click.Parameter | None, ctx: click.Context | None
    ) -> bytes:
        if isinstance(value, bytes):
            return value
        try:
            data = UUID(value).bytes if self._length == 16 else bytes.fromhex(value)
        except ValueError:
            data = b""
        if len(data) != self._length:
            digits = f"{2 * self._length} hexadecimal digits"
            self.fail(f"{value!r} is not {digits}{' or a UUID' if self._length == 16 else ''}")
        return data


MOMENT = Moment()
UUID_TYPE = Hexadecimal(16)
HASH = Hexadecimal(32)
NAME = Written("NAME", 64, "orders-jwt")
SPIFFE = Written("SPIFFE_ID", 255, "spiffe://shop.example/ns/shop/sa/checkout")
