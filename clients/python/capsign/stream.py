"""The SignStream of the client for threads: many threads share one stream, which one thread reads.

A thread that signs puts its job into the scheduler and, if the window has room, gives the next
message to gRPC itself; then it waits until the reader settles its job. The reader connects on
demand, sends again what a broken stream lost, and ends when nobody waits any more.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.agent.v1.agent_pb2_grpc import SigningServiceStub
from capsign_wire.types.v1 import failures_pb2

from capsign.agent_socket import AgentSocket
from capsign.batch_scheduler import BatchScheduler, Settled
from capsign.call import clock
from capsign.channel import AFTER_BREAKS, CONNECT_SLICE
from capsign.jobs import Answer, Job, closed_answer

Outgoing = queue.SimpleQueue[pb.SignStreamRequest | None]


class Waiter:
    """Lets one thread wait for one answer. A plain lock wakes it faster than an Event."""

    __slots__ = ("_lock", "answer")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.answer: Answer | None = None

    def settle(self, answer: Answer) -> None:
        self.answer = answer
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Wait; returns whether the answer came. The lock stays taken, so only one wait may return
        True.
        """
        return self._lock.acquire(timeout=max(0.0, seconds))


class Closing:
    """A flag that ends every wait when it is set. It is no Event, because that takes a lock, and a
    signal handler may close the signer while its own thread holds that lock.
    """

    __slots__ = ("_lock", "begun")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.begun = False

    def begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._lock.release()

    def wait(self, seconds: float) -> None:
        """Wait for so many seconds, or until closing begins."""
        if self._lock.acquire(timeout=seconds):
            self._lock.release()


class SyncStream:
    """Runs jobs over one stream at a time. Safe for any number of threads."""

    def __init__(
        self,
        stub: SigningServiceStub,
        agent_socket: AgentSocket,
        window: int,
        on_connect: Callable[[pb.ListHandlesResponse], object],
    ) -> None:
        self.stub = stub
        """Replaced in a fork, while no thread of ours uses it."""
        self._agent_socket = agent_socket
        self._on_connect = on_connect
        self.scheduler = BatchScheduler(window)
        self._lock = threading.Lock()
        self._outgoing: Outgoing | None = None
        self.call: Any = None
        """The gRPC call that the reader waits for; None between two attempts."""
        self.reader: threading.Thread | None = None
        """None while nobody waits for an answer."""
        self.closing = Closing()
        self._forking = False

    def run(self, jobs: Sequence[Job]) -> list[Answer]:
        """Have the jobs signed; returns by their deadline."""
        for job in jobs:
            job.waiter = Waiter()
        try:
            with self._lock:
                refused = [
                    self.scheduler.add(job) if not self.closing.begun else closed_answer(job)
                    for job in jobs
                ]
                for job, answer in zip(jobs, refused, strict=True):
                    if answer is not None:
                        job.settled = True
                        job.waiter.settle(answer)
                self._pump()
                self._ensure_reader()
            return [self._await(job) for job in jobs]
        except BaseException:
            with self._lock:
                for job in jobs:
                    self.scheduler.drop(job)
            raise

    def _ensure_reader(self) -> None:
        """Start the reader if there is none. To be called with the lock held."""
        if self.reader is None and not self._forking:
            reader = threading.Thread(target=self._serve, name="capsign-stream", daemon=True)
            reader.start()
            self.reader = reader

    def _await(self, job: Job) -> Answer:
        waiter: Waiter = job.waiter
        while not waiter.wait(min(self.scheduler.stalled_after, job.deadline - clock())):
            with self._lock:
                if job.settled:
                    continue
                if job.deadline <= clock():
                    # the reader waits to this same moment
                    if self._outgoing is None and self.scheduler.away is None:
                        self.scheduler.away = self._agent_socket.late()
                    self.scheduler.drop(job)
                    return Answer(failure=self.scheduler.overdue(job))
                self._pump()
                sent = job.message is not None
            if sent and waiter.wait(job.deadline - clock()):
                break
        assert waiter.answer is not None
        return waiter.answer

    def _pump(self) -> None:
        """Send the messages that may go now. To be called with the lock held."""
        if self._outgoing is None:
            return
        while (message := self.scheduler.next_message(clock())) is not None:
            self._outgoing.put(message)

    def _serve(self) -> None:
        """The reader thread's main loop."""
        breaks, told = 0, False
        while True:
            with self._lock:
                if self.reader is not threading.current_thread():
                    # an interrupt came between its start and the note of it: nobody knows this one
                    return
                settled = self.scheduler.close() if self.closing.begun else []
                ended = self.closing.begun or self._forking or self.scheduler.idle
                if ended:
                    self.reader = None
            _tell(settled)
            if ended:
                return
            if breaks:
                self.closing.wait(AFTER_BREAKS.delay_s(breaks))
            answered = False
            try:
                answered = self._connect() and self._read()
            except Exception as error:
                # whatever it is (gRPC could not start a thread), callers wait for this one
                if not told and not self.closing.begun:
                    told = True
                    _report(error)
            self._lose()
            breaks, told = (0, False) if answered else (breaks + 1, told)

    def _connect(self) -> bool:
        """Connect to the agent. Its answer to ListHandles shows that an agent listens, and which
        handle ids it knows.
        """
        with self._lock:
            latest = self.scheduler.latest_deadline()
        if latest is None:
            return False
        wait = min(CONNECT_SLICE, max(0.001, latest - clock()))
        probe = self.stub.ListHandles.future(
            pb.ListHandlesRequest(), timeout=wait, wait_for_ready=True
        )
        self._interruptible(probe)
        try:
            response = probe.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            if isinstance(error, grpc.RpcError):
                self._give_up_if_refused(error)
            _forget_frames(error)
            return False
        self._on_connect(response)
        # looked up here: gevent may have replaced it since
        outgoing: Outgoing = queue.SimpleQueue()
        call = self.stub.SignStream(iter(outgoing.get, None))
        self._interruptible(call)
        with self._lock:
            self.scheduler.away = None
            self._outgoing = outgoing
            self._pump()
        return True

    def _interruptible(self, call: Any) -> None:
        """While the reader waits for this call, closing or forking can cancel it."""
        with self._lock:
            self.call = call
            stop = self.closing.begun or self._forking
        if stop:
            call.cancel()

    def _give_up_if_refused(self, error: grpc.RpcError) -> None:
        failure = self._agent_socket.failed(error, effect=False)
        with self._lock:
            self.scheduler.away = failure
            late = self.scheduler.expire(clock())
            refused = failure.outcome == failures_pb2.OUTCOME_REFUSED and not self.closing.begun
            settled = self.scheduler.fail(failure) if refused else []
        _tell(late + settled)

    def _read(self) -> bool:
        """Settle jobs as their answers come, until the stream breaks; returns whether any came."""
        call, answered = self.call, False
        assert call is not None
        try:
            for response in call:
                with self._lock:
                    settled = self.scheduler.answer(response, clock())
                    self._pump()
                answered = True
                _tell(settled)
        except grpc.RpcError as error:
            # Why it broke does not matter: what was in flight is unanswered, and sent again it
            # gives the same bytes.
            _forget_frames(error)
        return answered

    def _lose(self) -> None:
        """The attempt to connect failed or the stream broke: jobs in flight wait for the next
        stream.
        """
        with self._lock:
            call, self.call = self.call, None
            if self._outgoing is not None:
                self._outgoing.put(None)
            self._outgoing = None
            self.scheduler.lose()
        if call is not None:
            call.cancel()  # does nothing to one that has ended

    def pause(self, cut_off: Callable[[], object] = lambda: None) -> None:
        """End the stream before a fork: gRPC works in the child only if no thread is inside it at
        that moment. Jobs in flight are sent again afterwards, with the same intents. `cut_off` is
        called to end what is still under way.
        """
        with self._lock:
            self._forking = True
            call, reader = self.call, self.reader
        if call is not None:
            call.cancel()
        cut_off()
        if reader is not None and reader is not threading.current_thread():
            reader.join(timeout=2.0)

    def resume(self) -> None:
        """Go on in the parent after a fork."""
        with self._lock:
            self._forking = False
            if not self.scheduler.idle:
                self._ensure_reader()

    def close(self) -> None:
        """Settle every job and end the stream. Called once.

        The reader does it; a job that is added after the reader has ended sees that closing has
        begun. No lock is taken, because a signal handler or the garbage collector may call this
        while its own thread holds it.
        """
        self.closing.begin()
        call, reader = self.call, self.reader
        if call is not None:
            call.cancel()
        if reader is not None and reader is not threading.current_thread():
            with contextlib.suppress(RuntimeError):
                reader.join(timeout=1.0)


def _forget_frames(error: BaseException) -> None:
    """Remove the traceback of an error that gRPC raised. The error is the call itself: with our
    frames in its traceback the call would live until the interpreter ends, and its finalizer might
    then wait forever for a lock of a thread that is gone.
    """
    error.__traceback__ = None


def _report(error: Exception) -> None:
    """Report a defect as Python reports an exception that ends a thread; this thread goes on."""
    with contextlib.suppress(Exception):
        threading.excepthook(
            threading.ExceptHookArgs(
                (type(error), error, error.__traceback__, threading.current_thread())
            )
        )


def _tell(settled: Settled) -> None:
    for job, answer in settled:
        job.waiter.settle(answer)
