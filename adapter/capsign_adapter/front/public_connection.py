"""A connection of the listener for verifiers, and the socket that it is accepted at."""

from __future__ import annotations

import asyncio
import socket

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from capsign_wire.addresses import Address

MAX_LINE = 4096
"""Longest request line, and longest field of a head, bytes."""


class _NoAccessLog(AbstractAccessLogger):
    """Who asks for public keys is not written down."""

    @property
    def enabled(self) -> bool:
        return False

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Nothing."""


class PublicConnection(web.RequestHandler):
    """Tells when it is closed."""

    __slots__ = ("_lost",)

    def __init__(
        self,
        server: web.Server,
        loop: asyncio.AbstractEventLoop,
        lost: asyncio.Event,
        idle_s: float,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log_class=_NoAccessLog,
            keepalive_timeout=idle_s,
            lingering_time=0.0,
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=64,
            read_bufsize=16 * 1024,
            auto_decompress=False,
        )
        self._lost = lost

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._lost.set()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP: aiohttp would log and quote it."""
        answer = web.Response(status=status, text="This is no HTTP/1.1 request that can be read.\n")
        answer.force_close()
        return answer


def listening(address: Address) -> socket.socket:
    """A socket that listens. Raises RuntimeError."""
    try:
        host, every = address.host, not address.host
        if every and not socket.has_dualstack_ipv6():
            host = "0.0.0.0"  # noqa: S104 - every address was asked for
        v6 = not host or ":" in host
        made = socket.create_server(
            (host or "::", address.port),
            family=socket.AF_INET6 if v6 else socket.AF_INET,
            backlog=128,
            dualstack_ipv6=v6 and every,
        )
    except OSError as error:
        raise RuntimeError(f"cannot listen at {address}") from error
    made.setblocking(False)
    return made
