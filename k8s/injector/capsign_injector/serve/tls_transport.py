"""TLS between a socket and a protocol, with little memory.

asyncio's own TLS keeps a buffer of 256 KiB for each connection, which for a thousand connections is
more than everything else together, and cannot be set. This does the same with `ssl.SSLObject`, and
all connections share the buffer into which they read (decision 36).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

READ_BYTES = 32 * 1024
"""Most bytes that are read at once: a whole TLS record of 16 KiB with its framing."""


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a protocol, and the protocol of the socket's transport. For one event loop.

    The protocol is made, and gets `connection_made`, once the handshake is over; only then does it
    get `connection_lost`. Its `eof_received` cannot keep the connection open: when the peer stops
    writing, TLS is over.
    """

    def __init__(
        self,
        made: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext,
        shared: bytearray,
        *,
        close_s: float,
    ) -> None:
        """`shared` is the buffer into which all connections of one event loop read. `close_s`:
        seconds that a peer has to take the last bytes after `close`.
        """
        super().__init__()
        self._made = made
        self._shared = memoryview(shared)
        self._close_s = close_s
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._wire: asyncio.Transport | None = None
        self._protocol: asyncio.Protocol | None = None
        self._closing = False
        self._paused = False
        self._last_call: asyncio.TimerHandle | None = None
        self.handshaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the protocol has its transport, or failed with an OSError (ssl.SSLError is
        one).
        """

    # The protocol of the socket's transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared

    def buffer_updated(self, nbytes: int) -> None:
        if self._closing:
            return
        self._incoming.write(self._shared[:nbytes])
        try:
            if self._protocol is None:
                self._shake()
            if self._protocol is not None:
                self._read(self._protocol)
        except OSError as error:
            self._fail(error)

    def eof_received(self) -> bool:
        self._ended()
        return False  # the socket is closed

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._wire = None
        if self._last_call is not None:
            self._last_call.cancel()
        self._refuse(exc or ConnectionResetError("no handshake"))
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    # The transport of the protocol above.

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if self._closing or not data:
            return
        try:
            self._tls.write(data)
        except OSError as error:
            self._fail(error)
            return
        self._flush()

    def close(self) -> None:
        """Close after the peer has got what was written, and TLS's close_notify."""
        if self._closing:
            return
        self._closing = True
        with suppress(OSError):  # the peer's own word is not waited for
            self._tls.unwrap()
        self._flush()
        if self._wire is not None:
            loop = asyncio.get_running_loop()
            self._last_call = loop.call_later(self._close_s, self._wire.abort)
            self._wire.close()

    def abort(self) -> None:
        self._closing = True
        if self._wire is not None:
            self._wire.abort()

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self._paused = True
        if self._wire is not None:
            self._wire.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._wire is None or self._closing:
            return
        self._wire.resume_reading()
        # What is decrypted or waits to be so comes from no socket any more.
        asyncio.get_running_loop().call_soon(self.buffer_updated, 0)

    def is_reading(self) -> bool:
        return not self._paused and not self._closing

    def get_write_buffer_size(self) -> int:
        return self._wire.get_write_buffer_size() if self._wire is not None else 0

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "sslcontext":
            return self._tls.context
        return self._wire.get_extra_info(name, default) if self._wire is not None else default

    # TLS.

    def _shake(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        finally:
            self._flush()
        self._protocol = self._made()
        self._protocol.connection_made(self)
        if not self.handshaken.done():
            self.handshaken.set_result(None)

    def _read(self, protocol: asyncio.Protocol) -> None:
        try:
            while not self._paused and not self._closing:
                data = self._tls.read(READ_BYTES)
                if not data:
                    self._ended()
                    break
                protocol.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended()
        finally:
            self._flush()

    def _ended(self) -> None:
        """The peer has stopped writing."""
        if self._protocol is not None and not self._closing:
            self._protocol.eof_received()
        self.close()

    def _flush(self) -> None:
        if self._outgoing.pending and self._wire is not None:
            self._wire.write(self._outgoing.read())

    def _fail(self, error: OSError) -> None:
        self._refuse(error)
        self.abort()

    def _refuse(self, error: Exception) -> None:
        if not self.handshaken.done():
            self.handshaken.set_exception(error)
            self.handshaken.exception()  # whoever waited may have gone
