"""Coalescing, decided without I/O: which jobs form the next message, and which job an answer
belongs to.

A job is what one caller wants signed under one template. When the window has room (`send_window`),
all jobs that wait become the next message, those of one template merged into one group. So a single
caller never waits, and many callers share messages. Nothing here locks or awaits: the owner calls
from one thread or under one lock, and time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.bounds import MAX_BATCH_ITEMS
from capsign_wire.failures import FailureError
from capsign_wire.trace_context import gathered
from capsign_wire.types.v1 import failures_pb2

from capsign.handles import Template
from capsign.jobs import Answer, Job, Message, closed_answer
from capsign.send_window import SendWindow
from capsign.translate import AgentAwayError, made

MAX_GROUPS = 64
"""Most groups in one message (agent.proto)."""

MAX_BYTES = 2 * 1024 * 1024
"""Most input bytes gathered into one message; half of what a message may have, so that framing
never matters.
"""

MAX_WAITING = 65536
"""Most items that wait; a further job is refused as OVERLOADED and not sent."""

MAX_TIMEOUT_MS = 60_000


Settled = list[tuple[Job, Answer]]


class BatchScheduler:
    """The jobs of one stream: those that wait, and those in flight."""

    def __init__(self, window: int) -> None:
        self._window = SendWindow(window)
        self._waiting: deque[Job] = deque()
        self._waiting_items = 0
        self._flying: dict[int, Message] = {}
        self._next_id = 1
        self.away: FailureError | None = None
        """Why the agent could not be reached the last time; None while a stream is open."""

    @property
    def stalled_after(self) -> float:
        """Seconds after which `next_message` is worth another try."""
        return self._window.stalled_after

    @property
    def idle(self) -> bool:
        """Whether no job waits or is in flight."""
        return not self._flying and not any(not job.settled for job in self._waiting)

    def add(self, job: Job) -> Answer | None:
        """Queue a job; returns an OVERLOADED answer if too many items wait already, else None."""
        self._discard_settled()
        if self._waiting_items + len(job.items) > MAX_WAITING:
            text = f"{self._waiting_items} items wait to be sent to the agent already."
            return Answer(
                failure=FailureError(failures_pb2.REASON_OVERLOADED, text, retry_after_ms=50)
            )
        self._waiting.append(job)
        self._waiting_items += len(job.items)
        self._window.added(len(job.items))
        return None

    def _discard_settled(self) -> None:
        """Remove jobs whose callers have given up from the front of the queue, so that they do not
        fill it while the agent is away.
        """
        while self._waiting and self._waiting[0].settled:
            self._waiting_items -= len(self._waiting.popleft().items)

    def next_message(self, now: float) -> pb.SignStreamRequest | None:
        """The message to send now; None if no job waits or the window is full. The caller must send
        it or call `lose`.
        """
        waiting = self._waiting_items
        if not self._waiting or not self._window.has_room(self._flying, waiting, now):
            return None
        message = Message(self._next_id, now)
        request = pb.SignStreamRequest(call_id=message.call_id)
        groups: dict[Template, int] = {}
        traces: list[str] = []
        items = size = 0
        latest = now
        while self._waiting:
            job = self._waiting[0]
            if not job.settled:
                if items and (
                    job.alone
                    or items + len(job.items) > MAX_BATCH_ITEMS
                    or size + job.size > MAX_BYTES
                    or (job.template not in groups and len(groups) >= MAX_GROUPS)
                ):
                    break
                self._place(job, message, request, groups)
                items += len(job.items)
                size += job.size
                latest = max(latest, job.deadline)
                if job.trace:
                    traces.append(job.trace)
            self._waiting.popleft()
            self._waiting_items -= len(job.items)
            if items and job.alone:
                break
        if not items:
            return None
        if traces:
            request.traceparent, links = gathered(traces)
            request.linked_traceparents.extend(links)
        request.timeout_ms = max(1, min(MAX_TIMEOUT_MS, int((latest - now) * 1000)))
        self._next_id += 1
        self._flying[message.call_id] = message
        return request

    @staticmethod
    def _place(
        job: Job, message: Message, request: pb.SignStreamRequest, groups: dict[Template, int]
    ) -> None:
        index = groups.get(job.template)
        if index is None:
            index = groups[job.template] = len(groups)
            request.groups.append(job.template.group)
            message.sizes.append(0)
        items = request.groups[index].items
        for item in job.items:
            if item.digest:
                items.add(intent_id=item.intent_id, digest=item.data)
            else:
                items.add(intent_id=item.intent_id, message=item.data)
        message.places.append((job, index, message.sizes[index]))
        message.sizes[index] += len(job.items)
        message.open += 1
        job.message = message
        job.sent = True

    def answer(self, response: pb.SignStreamResponse, now: float) -> Settled:
        """Take an answer; returns the jobs that it settles, each with its own answer. Jobs whose
        callers have given up are left out.
        """
        message = self._flying.pop(response.call_id, None)
        if message is None:
            return []
        self._window.answered(message, now)
        if response.HasField("failure"):
            return self._whole_failure(message, FailureError.from_item(response.failure))
        if [len(group.items) for group in response.groups] != message.sizes:
            text = "The agent's answer does not have the shape of the question."
            return self._all(
                message, Answer(failure=FailureError(failures_pb2.REASON_INTERNAL, text))
            )
        by = [(group.items, made(group.signed_by)) for group in response.groups]
        settled: Settled = []
        for job, index, first in message.places:
            if not job.settled:
                job.settled = True
                items, signed_by = by[index]
                count = len(job.items)
                part = (items[first],) if count == 1 else items[first : first + count]
                settled.append((job, Answer(part, signed_by)))
        return settled

    def _whole_failure(self, message: Message, failure: FailureError) -> Settled:
        """The agent refused a message as a whole. One of its jobs may be the cause, so each is sent
        again in a message of its own, with the same intents.
        """
        jobs = [job for job, _, _ in message.places if not job.settled]
        if failure.outcome != failures_pb2.OUTCOME_REFUSED or len(message.places) == 1:
            return self._all(message, Answer(failure=failure))
        for job in jobs:
            job.alone = True
            job.sent = job.lost
        self._requeue(jobs)
        return []

    @staticmethod
    def _all(message: Message, answer: Answer) -> Settled:
        settled: Settled = [(job, answer) for job, _, _ in message.places if not job.settled]
        for job, _ in settled:
            job.settled = True
        return settled

    def lose(self) -> None:
        """The stream broke: queue what was in flight again, before all others, with the same intent
        ids.
        """
        jobs = [
            job
            for message in self._flying.values()
            for job, _, _ in message.places
            if not job.settled
        ]
        for job in jobs:
            job.lost = True
        self._flying.clear()
        self._requeue(jobs)

    def _requeue(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.message = None
        self._waiting.extendleft(reversed(jobs))
        self._waiting_items += sum(len(job.items) for job in jobs)

    def drop(self, job: Job) -> None:
        """The caller of this job has given up. A message without any other caller stops counting
        against the window.
        """
        if job.settled:
            return
        job.settled = True
        if job.message is not None:
            job.message.open -= 1
            if job.message.open == 0:
                self._flying.pop(job.message.call_id, None)

    def expire(self, now: float) -> Settled:
        """Settle the jobs whose deadline has passed; returns them with their failures."""
        late = [job for job in self._jobs() if job.deadline <= now]
        settled: Settled = [(job, Answer(failure=self.overdue(job))) for job in late]
        for job in late:
            self.drop(job)
        return settled

    def overdue(self, job: Job) -> FailureError:
        """The failure of a job whose deadline has passed."""
        if job.sent:
            return FailureError(
                failures_pb2.REASON_ANSWER_LATE,
                "The call was sent and its deadline passed before the answer.",
            )
        if self.away is not None:
            return self.away
        return AgentAwayError(
            "The deadline passed before the call could be sent: the agent took no more calls."
        )

    def fail(self, failure: FailureError) -> Settled:
        """Settle every job with this failure: the agent cannot be used."""
        return [(job, Answer(failure=failure)) for job in self._drop_all()]

    def close(self) -> Settled:
        """Settle every job: the signer is being closed."""
        return [(job, closed_answer(job)) for job in self._drop_all()]

    def _drop_all(self) -> list[Job]:
        jobs = self._jobs()
        for job in jobs:
            self.drop(job)
        self._waiting.clear()
        self._waiting_items = 0
        return jobs

    def soonest_deadline(self) -> float | None:
        """The earliest deadline of all jobs."""
        return min((job.deadline for job in self._jobs()), default=None)

    def latest_deadline(self) -> float | None:
        """The last deadline of all jobs."""
        return max((job.deadline for job in self._jobs()), default=None)

    def _jobs(self) -> list[Job]:
        flying = [
            job
            for message in self._flying.values()
            for job, _, _ in message.places
            if not job.settled
        ]
        return flying + [job for job in self._waiting if not job.settled]
