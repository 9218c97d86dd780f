"""Bounds on the RPCs of one socket, applied before their messages are received.

gRPC calls the handler of a unary RPC only once the whole request is in memory. So every method is
registered with gRPC as one that receives its messages itself: an RPC first takes memory, then waits
for a read slot, then receives. `memory_budget` and `read_slots` decide; this module applies it to
grpcio.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio
from capsign_wire import bounds
from capsign_wire.advice import Given
from capsign_wire.failures import FailureError, RpcStatus
from capsign_wire.types.v1 import failures_pb2

from capsign_agent.front.memory_budget import RPC_BYTES, RPC_MEMORY, MemoryBudget, RpcMemory
from capsign_agent.front.memory_shares import MemoryShares
from capsign_agent.front.read_slots import Reader, ReadSlots

SERVER_OPTIONS = [
    ("grpc.max_receive_message_length", bounds.taken_bytes(bounds.MAX_MESSAGE_BYTES)),
    ("grpc.max_send_message_length", bounds.MAX_ANSWER_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Off: it counts streams that are not quite gone, and refuses an honest client's calls without a
    # word of ours (decision 22).
    ("grpc.http.overload_protection", 0),
    (
        "grpc.http2.bdp_probe",
        0,
    ),  # the window stays as it is: nothing is gained by more on a socket of the same machine
    # Whoever resets streams is asked for a sign of life; who gives none opens no more of them
    # (decision 22).
    ("grpc.http2.ping_on_rst_stream_percent", 100),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),  # pings are answered: decision 80
    # Identity only: a gzip message of 4 KiB may otherwise become 4 MiB before anybody has looked at
    # it.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.so_reuseport", 0),
]
"""gRPC's settings of every socket. tests/system/test_hostile_agent_socket.py attacks a server with
these.
"""


def server_options(share: MemoryShares, connections: int) -> list[tuple[str, int]]:
    """gRPC's settings for a socket that takes this many connections."""
    return [
        *SERVER_OPTIONS,
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", share.streams),
        ("grpc.http2.lookahead_bytes", share.window),
        # The first is where gRPC begins to cancel some by chance, the second where it does all: by
        # itself 1,000 and 3,000, which honest clients reach together.
        ("grpc.server.max_pending_requests", share.unseen),
        ("grpc.server.max_pending_requests_hard_limit", share.unseen),
    ]


LEAVING, LEAVING_S, MOST_LEAVING = 256, 0.5, 1024
"""Refused RPCs, of all sockets, whose callers have not received the refusal yet. Above the first
number those that are older than LEAVING_S seconds are cancelled, above the last number all: a
caller that does not read would otherwise hold memory without having been admitted.
"""

DEAF_S = 5.0
"""Seconds that a caller has to receive the refusal when its RPC is ended while it is read."""

UNREAD_S = 20.0
"""Seconds that an answer may wait until its caller takes it; then the RPC is cancelled."""


class MessageReader(Reader):
    """Receives the messages of one RPC. Used by the task of that RPC only."""

    def __init__(
        self,
        context: Any,
        slots: ReadSlots,
        socket: str,
        quiet: Callable[[], bool] | None = None,
        *,
        task: asyncio.Task[Any] | None = None,
    ) -> None:
        """`task` is the RPC's own, by default the current one."""
        super().__init__(socket, quiet)
        self._context = context
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._task = task or _task_of_call()
        self._waiter: asyncio.Future[None] | None = None
        self._telling: asyncio.Task[None] | None = None

    async def next(self) -> Any:
        """The next message, or `grpc.aio.EOF`. Raises FailureError OVERLOADED if no read slot was
        free in time, and AbortError if the RPC was ended because no whole message came in time or
        because other sockets wait.
        """
        if not self._slots.ask(self, now := self._loop.time()):
            self._waiter = self._loop.create_future()
            self._slots.look(now)
            await self._waiter
        try:
            return await self._context.read()
        except grpc.aio.AbortError as ending:
            at_end_of_call(functools.partial(_forget_way, ending))
            raise

    def close(self) -> None:
        """Give the read slot back: nothing more is received."""
        if self.ending:
            at_end_of_call(self._done)
        else:
            self._done()

    def _done(self) -> None:
        self._slots.done(self, self._loop.time())

    def go(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        if self.reading:
            # The read is not cancelled: grpcio would never free what comes of the message. gRPC
            # ends it with the RPC.
            self._telling = self._loop.create_task(self._tell())
            timer = self._loop.call_later(DEAF_S, self._task.cancel)
            self._task.add_done_callback(lambda _: timer.cancel())
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(
                _overloaded("Too many messages of this socket are being read.")
            )

    async def _tell(self) -> None:
        detail = (
            "No whole message came in time, or others wait for this place. Open another "
            "stream, or send the call again."
        )
        try:
            await self._context.abort_with_status(RpcStatus(_overloaded(detail)))
        except grpc.aio.AbortError as ending:
            _forget_way(ending)
        except Exception:
            # whatever gRPC raises when the application has gone: nobody is left to tell
            return


def _overloaded(detail: str) -> FailureError:
    return FailureError(failures_pb2.REASON_OVERLOADED, detail, retry_after_ms=50)


class RefusedRpcs:
    """The RPCs that were refused and have not ended, oldest first. For all sockets."""

    def __init__(self) -> None:
        self._since: dict[asyncio.Task[Any], float] = {}

    def one_more(self) -> None:
        """Add the current RPC, and cancel older ones above the bounds LEAVING and MOST_LEAVING."""
        task = _task_of_call()
        now = asyncio.get_running_loop().time()
        self._since[task] = now
        task.add_done_callback(lambda gone: self._since.pop(gone, None))
        while len(self._since) > LEAVING:
            oldest, since = next(iter(self._since.items()))
            if now - since < LEAVING_S and len(self._since) <= MOST_LEAVING:
                return
            del self._since[oldest]
            oldest.cancel()


class BoundedRegistrar:
    """Registers the methods of one socket with these bounds around each. Pass it to a generated
    `add_…_to_server` in place of the server (below `lenient`). For one event loop.
    """

    def __init__(
        self,
        server: Any,
        memory: MemoryBudget,
        slots: ReadSlots,
        leaving: RefusedRpcs,
        socket: str,
        unread_s: float = UNREAD_S,
        *,
        receives_whole: bool = False,
    ) -> None:
        """`receives_whole`: the server hands unary calls over with their message, so only what
        they hold from then on is bounded.
        """
        self._server = server
        self._receives_whole = receives_whole
        self._unread_s = unread_s
        self._memory = memory
        self._slots = slots
        self._leaving = leaving
        self._socket = socket

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Does nothing: the same handlers come by name in `add_registered_method_handlers`."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Register the handlers, with the bounds around each."""
        mine = {name: self._behind(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, mine),)
        )
        self._server.add_registered_method_handlers(service, mine)

    def _behind(self, handler: Any) -> Any:
        if handler.request_streaming:
            behaviour = handler.stream_stream

            async def stream(_: Any, context: Any) -> None:
                _until_over(await self._admit(context))
                await behaviour(None, context)

            return handler._replace(stream_stream=stream)
        behaviour = handler.unary_unary
        if self._receives_whole:
            # it is over for us once its answer is handed on, so no callback of its task is needed
            async def whole(message: Any, context: Any) -> Any:
                held = await self._admit(context)
                try:
                    return await behaviour(message, context)
                finally:
                    held.give_back()

            return handler._replace(unary_unary=whole)

        async def unary(_: Any, context: Any) -> Any:
            task = _until_over(await self._admit(context))
            answer = await behaviour(await self._message(context, task), context)
            _cut_off_unread(self._unread_s, task)
            return answer

        made = grpc.stream_unary_rpc_method_handler
        return made(unary, handler.request_deserializer, handler.response_serializer)

    async def _admit(self, context: Any) -> RpcMemory:
        """Take the memory of an RPC as such; it is to be given back once the RPC is over. Ends the
        RPC with OVERLOADED if there is none.
        """
        held = RpcMemory(self._memory)
        try:
            held.take(RPC_BYTES)
        except FailureError as error:
            self._leaving.one_more()
            await abort(context, error)
        RPC_MEMORY.set(held)
        return held

    async def _message(self, context: Any, task: asyncio.Task[Any]) -> Any:
        inbox = MessageReader(context, self._slots, self._socket, task=task)
        try:
            message = await inbox.next()
        except FailureError as error:
            await abort(context, error)
        finally:
            inbox.close()
        if message is grpc.aio.EOF:
            message = bounds.Unparsed(
                FailureError(
                    failures_pb2.REASON_INPUT_MALFORMED,
                    "The call has no message.",
                    given=Given.REQUEST,
                ).to_item()
            )
        return message


def _until_over(held: RpcMemory) -> asyncio.Task[Any]:
    """Give the memory of this RPC back when its task ends; returns the task."""
    task = _task_of_call()
    task.add_done_callback(held.give_back)
    return task


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: FailureError) -> NoReturn:
    """End the RPC with this failure as its status and details. Always raises gRPC's AbortError."""
    _cut_off_unread()
    try:
        await context.abort_with_status(RpcStatus(error))
    except grpc.aio.AbortError as ending:
        # gRPC keeps it with the call, and its traceback keeps the call and the request: the
        # collector would find them late.
        at_end_of_call(functools.partial(_forget_way, ending))
        raise
    raise AssertionError("abort_with_status raises")


def _forget_way(error: BaseException) -> None:
    error.__traceback__ = error.__context__ = None


def at_end_of_call(act: Callable[[], None]) -> None:
    """Call `act` when the current RPC is over: its answer was taken, or nobody can take it any
    more.

    gRPC's own callback for that makes a reference cycle, and the request would stay in memory until
    the garbage collector runs. A callback of the RPC's task does not.
    """
    _task_of_call().add_done_callback(lambda _: act())


def _task_of_call() -> asyncio.Task[Any]:
    """The task of the current RPC. Python 3.11 takes longer to find it than to add a callback."""
    task = asyncio.current_task()
    assert task is not None
    return task


def _cut_off_unread(seconds: float = UNREAD_S, task: asyncio.Task[Any] | None = None) -> None:
    """Cancel an RPC, by default the current one, if its caller has not taken the answer within
    UNREAD_S.
    """
    task = task or _task_of_call()
    timer = asyncio.get_running_loop().call_later(seconds, task.cancel)
    task.add_done_callback(lambda _: timer.cancel())
