"""Asks one witness over HTTP (C2SP tlog-witness). Every answer has a bound on its size, and on its
time however its bytes trickle.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

import aiohttp
from capsign_evidence.witness_protocol import MAX_ANSWER_LEN, origin_hash


class NoAnswerError(Exception):
    """There is no answer. The text is a short name of the cause, and repeats nothing that was
    received.
    """


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, content type without parameters, and body."""

    status: int
    content_type: str
    body: bytes


class WitnessClient:
    """Keeps its connection. For one thread at a time, which waits."""

    def __init__(self, url: str, timeout_s: float, context: ssl.SSLContext) -> None:
        """`url` is the prefix of the paths; `timeout_s` bounds each exchange as a whole."""
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._context = context
        self._runner: asyncio.Runner | None = None
        self._session: aiohttp.ClientSession | None = None

    def add_checkpoint(self, body: bytes) -> Reply:
        """Raises NoAnswerError; the witness may have cosigned then."""
        return self._ask("POST", "add-checkpoint", body)

    def checkpoint(self, origin: str) -> bytes | None:
        """The last checkpoint of a log that the witness cosigned, not verified; None if it has
        none. Raises NoAnswerError.
        """
        reply = self._ask("GET", f"{origin_hash(origin)}/checkpoint", None)
        if reply.status not in (200, 404):
            raise NoAnswerError(f"status {reply.status}")
        return reply.body if reply.status == 200 else None

    def close(self) -> None:
        """Close the connection. Not while another thread asks."""
        if self._runner is not None:
            if self._session is not None:
                self._runner.run(self._session.close())
            self._runner.close()
        self._runner = self._session = None

    def _ask(self, method: str, path: str, body: bytes | None) -> Reply:
        if self._runner is None:
            self._runner = asyncio.Runner()
        try:
            return self._runner.run(self._exchange(method, path, body))
        except TimeoutError:
            raise NoAnswerError("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoAnswerError(type(error).__name__) from None

    async def _exchange(self, method: str, path: str, body: bytes | None) -> Reply:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                connector=aiohttp.TCPConnector(limit=1, ssl=self._context),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        url = f"{self._url}/{path}"
        async with self._session.request(method, url, data=body, allow_redirects=False) as answer:
            data = bytearray()
            async for chunk in answer.content.iter_any():
                data += chunk
                if len(data) > MAX_ANSWER_LEN:
                    raise NoAnswerError("answer too long")
            return Reply(answer.status, answer.content_type, bytes(data))
