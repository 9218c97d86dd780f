"""The sync client's long-lived SignStream: many threads, one stream, one thread that reads it.

A thread that signs puts its job into the scheduler and, if the window has room, hands the next
message to gRPC itself; then it waits for the reader to settle its job. The reader connects on
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
from capsign.batch_scheduler import STALLED_AFTER, BatchScheduler, Settled
from capsign.call import clock
from capsign.channel import AFTER_BREAKS, CONNECT_SLICE
from capsign.jobs import Answer, Job, closed_answer

Outgoing = queue.SimpleQueue[pb.SignStreamRequest | None]


class Waiter:
    """One thread waits for one answer. A bare lock wakes faster than an Event."""

    __slots__ = ("_lock", "answer")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.answer: Answer | None = None

    def settle(self, answer: Answer) -> None:
        self.answer = answer
        self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Whether the answer came. The lock stays taken, so only one wait may return True."""
        return self._lock.acquire(timeout=max(0.0, seconds))


class Closing:
    """Begins once and ends every wait. No Event: that takes a lock of its own to wait and to end
    waits, and a signal handler may close the signer while its thread holds it.
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
        """Wait that long, or until it begins."""
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
        """What the reader waits for now; None between two attempts."""
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
        """Called with the lock held: the reader waits for it before it looks whether it is the
        reader.
        """
        if self.reader is None and not self._forking:
            reader = threading.Thread(target=self._serve, name="capsign-stream", daemon=True)
            reader.start()
            self.reader = reader

    def _await(self, job: Job) -> Answer:
        waiter: Waiter = job.waiter
        while not waiter.wait(min(STALLED_AFTER, job.deadline - clock())):
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
        """Hand over the messages that may go now. Called with the lock held."""
        if self._outgoing is None:
            return
        while (message := self.scheduler.next_message(clock())) is not None:
            self._outgoing.put(message)

    def _serve(self) -> None:
        """The reader thread."""
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
        """Reach the agent: an answer to ListHandles proves that one listens, and tells the ids that
        it knows now.
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
        """What the reader waits for now, so that closing or forking can end it."""
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
        """Settle what is answered until the stream breaks; whether anything was."""
        call, answered = self.call, False
        assert call is not None
        try:
            for response in call:
                with self._lock:
                    settled = self.scheduler.answer(response)
                    self._pump()
                answered = True
                _tell(settled)
        except grpc.RpcError as error:
            # Why it broke does not matter: what was in flight is unanswered, and sent again it
            # gives the same bytes.
            _forget_frames(error)
        return answered

    def _lose(self) -> None:
        """The attempt to connect failed, or the stream broke: what was in flight waits for the next
        one.
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
        """End the stream before a fork: gRPC can be used in the child only if no thread is inside
        it at that moment. What is in flight is sent again afterwards, under the same intents.
        `cut_off` ends what is not ended by then.
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
        """Go on in the parent."""
        with self._lock:
            self._forking = False
            if not self.scheduler.idle:
                self._ensure_reader()

    def close(self) -> None:
        """Have everything that waits settled and the stream ended. Called once.

        The reader does it, and whoever adds a job after it has gone sees that closing has begun. No
        lock is taken: a signal handler, or the garbage collector, may be here while its own thread
        holds it.
        """
        self.closing.begin()
        call, reader = self.call, self.reader
        if call is not None:
            call.cancel()
        if reader is not None and reader is not threading.current_thread():
            with contextlib.suppress(RuntimeError):
                reader.join(timeout=1.0)


def _forget_frames(error: BaseException) -> None:
    """gRPC raises the call itself. With our frames in its traceback, and it in our frames, the call
    would live until the interpreter ends, and its finalizer may then wait for ever for a lock that
    a thread held which is no more.
    """
    error.__traceback__ = None


def _report(error: Exception) -> None:
    """As Python reports what ends a thread, though this one goes on."""
    with contextlib.suppress(Exception):
        threading.excepthook(
            threading.ExceptHookArgs(
                (type(error), error, error.__traceback__, threading.current_thread())
            )
        )


def _tell(settled: Settled) -> None:
    for job, answer in settled:
        job.waiter.settle(answer)
