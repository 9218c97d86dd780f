"""Waits until a channel is connected, and leaves no thread of gRPC's behind.

gRPC looks at the state of a channel in threads of its own. One of them goes on for up to 0.2 s
after nobody wants to know any more, and ends with a traceback on standard error if the channel is
closed under it. `grpc.channel_ready_future` leaves it behind, so nothing of ours uses that, and
nothing but this module subscribes to the state of a channel.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc

CONNECT_SECONDS = 10.0
"""Longest wait for each step of connecting."""

END_SECONDS = 10.0
"""Longest wait for each of gRPC's threads. It needs 0.2 s, more on a machine that is very busy."""


@contextmanager
def connected(channel: grpc.Channel) -> Iterator[None]:
    """Enter the block once the channel is connected. When the block ends, the threads that looked
    at its state have ended too.

    Raises grpc.FutureTimeoutError if the connection fails or takes too long. `channel` is one whose
    state nobody else looks at.
    """
    states: SimpleQueue[grpc.ChannelConnectivity] = SimpleQueue()
    telling: set[threading.Thread] = set()

    def tell(state: grpc.ChannelConnectivity) -> None:
        telling.add(threading.current_thread())
        states.put(state)

    before = set(threading.enumerate())
    channel.subscribe(tell, try_to_connect=True)
    looking = set(threading.enumerate()) - before
    try:
        _await_ready(states)
        channel.unsubscribe(tell)
        yield
    finally:
        channel.unsubscribe(tell)
        for threads in (looking, telling):  # who looks may begin to tell until it ends
            for thread in threads:
                thread.join(timeout=END_SECONDS)


def _await_ready(states: SimpleQueue[grpc.ChannelConnectivity]) -> None:
    import grpc

    state = None
    while state is not grpc.ChannelConnectivity.READY:
        try:
            state = states.get(timeout=CONNECT_SECONDS)
        except Empty:
            raise grpc.FutureTimeoutError from None
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            raise grpc.FutureTimeoutError
