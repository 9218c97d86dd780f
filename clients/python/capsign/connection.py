"""A connection to the agent for one process (channel, stub and stream), and what happens to it in a
fork.

gRPC survives a fork by itself if GRPC_ENABLE_FORK_SUPPORT is not set. If it is set, to 0 or 1, gRPC
survives only if no channel is open at that moment, because then it has no thread left. So every
channel is closed before the fork and opened after it. Calls wait meanwhile, or are sent again with
the same intents.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from capsign_wire import channels
from capsign_wire.agent.v1.agent_pb2_grpc import SigningServiceStub

from capsign import channel as wire
from capsign import green_threads
from capsign.agent_socket import AgentSocket
from capsign.call import Ask, clock
from capsign.jobs import Answer, Job
from capsign.stream import SyncStream
from capsign.translate import AgentAwayError

VARIABLE = "GRPC_ENABLE_FORK_SUPPORT"
FALSE = frozenset({"0", "false", "no"})
_chosen = os.environ.get(VARIABLE, "")
"""The variable's value when gRPC was imported, which is when gRPC read it."""

QUIET_SECONDS = 1.0
"""Seconds that a fork waits for cancelled calls and for gRPC's threads to end."""

of_the_parent: list[Connection] = []
"""Connections that a fork left in the child. They are kept, because closing one would send on a
socket that the parent still uses.
"""


class Connection:
    """A connection of one process. After a fork the child makes its own."""

    def __init__(
        self,
        target: str,
        agent_socket: AgentSocket,
        window: int,
        on_connect: Callable[[Any], object],
    ) -> None:
        """Raises RuntimeError if gRPC cannot be used in this process."""
        if _stranded:
            raise RuntimeError(_stranded)
        self.pid = os.getpid()
        self.threads = green_threads.prepare()
        self.agent_socket = agent_socket
        self.listing = threading.Lock()
        self.listed: tuple[int, Any] = (0, None)
        self._target = target
        self._calls = 0
        self._away = False
        self._changed = threading.Condition(threading.Lock())
        self.channel = channels.insecure(target, wire.OPTIONS)
        self._stub = SigningServiceStub(self.channel)
        self.stream = SyncStream(self._stub, agent_socket, window, on_connect)
        _connections.add(self)
        _follow_forks()

    @property
    def current(self) -> bool:
        """Whether it belongs to this process, and to the kind of threads (real ones or gevent's) in
        use now.
        """
        return self.pid == os.getpid() and self.threads == green_threads.patched()

    @contextmanager
    def calling(self) -> Iterator[SigningServiceStub]:
        """The stub for one unary call. Waits while a fork is under way."""
        with self._changed:
            while self._away:
                self._changed.wait()
            self._calls += 1
        try:
            yield self._stub
        finally:
            with self._changed:
                self._calls -= 1
                if self._away:
                    self._changed.notify_all()

    def ask(self, step: Ask) -> Any:
        """One unary call: its response, or a FailureError as a value."""
        agent_socket, now = self.agent_socket, clock()
        if (blocked := agent_socket.blocked()) is not None:
            return blocked
        until = agent_socket.deadline(step.deadline, now)
        try:
            with self.calling() as stub:
                answer = getattr(stub, step.method)(
                    step.request, timeout=max(0.001, until - now), wait_for_ready=True
                )
        except grpc.RpcError as error:
            return agent_socket.failed(error, effect=step.effect, until=until)
        agent_socket.open = True
        return answer

    def list_handles(self, step: Ask) -> Any:
        """ListHandles, asked once for all threads that ask at the same time."""
        seen, _ = self.listed
        if not self.listing.acquire(timeout=max(0.001, step.deadline - clock())):
            return AgentAwayError("The agent did not list its handles in time.")
        try:
            count, response = self.listed
            if count == seen:
                response = self.ask(step)
                self.listed = (count + 1, response)
            return response
        finally:
            self.listing.release()

    def sign(self, job: Job) -> Answer:
        """Sign a job by an RPC of its own, without coalescing."""
        wait, trace = max(0.001, job.deadline - clock()), wire.metadata(job.trace)
        job.sent = True
        try:
            with self.calling() as stub:
                if len(job.items) == 1:
                    single = stub.Sign(
                        wire.single(job), timeout=wait, wait_for_ready=True, metadata=trace
                    )
                    return wire.single_answer(single)
                batch = stub.SignBatch(
                    wire.batch(job), timeout=wait, wait_for_ready=True, metadata=trace
                )
                return wire.batch_answer(job, batch)
        except grpc.RpcError as error:
            return wire.failed_answer(job, error)

    def close(self) -> None:
        # After a fork the parent's threads and locks are not here, nor is any thread when the
        # interpreter ends: touching what they hold could wait for ever.
        if self.pid == os.getpid() and not sys.is_finalizing():
            self.stream.close()
            self.channel.close()

    def pause(self) -> None:
        """To be called before a fork."""
        if not _chosen:
            self.stream.pause()
            return
        with self._changed:
            self._away = True
        self.stream.pause(self.channel.close)
        with self._changed:
            self._changed.wait_for(lambda: not self._calls, QUIET_SECONDS)

    def resume(self) -> None:
        """To be called in the parent after a fork."""
        if self._away:
            if not self.stream.closing.begun:
                self.channel = channels.insecure(self._target, wire.OPTIONS)
                self._stub = self.stream.stub = SigningServiceStub(self.channel)
            with self._changed:
                self._away = False
                self._changed.notify_all()
        self.stream.resume()


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()
_paused: list[Connection] = []
_forks = threading.RLock()
"""Held during a fork, so that a second thread that forks at the same time does not open what the
first has closed.
"""
_stranded = ""
"""Why gRPC cannot be used in this process; empty if it can."""
_would_strand = False
_following = False


def _before_fork() -> None:
    global _paused, _would_strand
    _forks.acquire()
    _paused = list(_connections)
    for one in _paused:
        one.pause()
    # With 1 too: gRPC's own preparations are left out, without a word, while one of its threads is
    # at
    # work, as those are that end what was closed just now; a child then waits for a lock of theirs.
    ended = not _chosen or _grpc_has_ended()
    _would_strand = _chosen.lower() in FALSE and not ended


def _after_fork() -> None:
    for one in _paused:
        one.resume()
    _paused.clear()
    _forks.release()


def _in_child() -> None:
    # The parent's streams have no thread here, and their locks may be held for ever.
    global _connections, _forks, _stranded
    of_the_parent.extend(_paused)
    _paused.clear()
    _forks = threading.RLock()
    _connections = weakref.WeakSet()
    if _would_strand:
        _stranded = (
            f"{VARIABLE}={_chosen} keeps gRPC from being used in the children of a fork "
            f"whose parent uses it, and something"
            " else than capsign.Signer does: calls would never return. Unset the "
            "variable, start children with spawn, or close"
            " what uses gRPC before the fork."
        )


def _grpc_has_ended() -> bool:
    """Whether gRPC's own threads have ended; they do soon after the last channel was closed."""
    pause, waited = threading.Event(), 0.0
    while any(name.startswith(("event_engine", "grpc_")) for name in _thread_names()):
        if waited >= QUIET_SECONDS:
            return False
        pause.wait(0.01)
        waited += 0.01
    return True


def _thread_names() -> list[str]:
    names = []
    for task in Path("/proc/self/task").glob("*/comm"):
        try:
            names.append(task.read_text())
        except OSError:  # it ended just now
            continue
    return names


def _follow_forks() -> None:
    """Register the hooks around forks, once gRPC has made a channel. Hooks before a fork run in
    reverse order of their registration, and with GRPC_ENABLE_FORK_SUPPORT=1 gRPC's own stops its
    threads there; ours must run first.
    """
    global _following
    if not _following:
        _following = True
        os.register_at_fork(
            before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
        )
