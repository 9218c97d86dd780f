"""A call from start to end, without I/O: choose the handle, send, read the answers, repeat what may
be repeated.

Each call is a generator. It yields what is to be done (`Submit`, `Ask`, `Sleep`) and is sent the
result; `Signer` does these steps with threads, `AsyncSigner` with asyncio. So both repeat and give
up in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.backoff import Backoff
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

from capsign import requests
from capsign.agent_status import AgentStatus, agent_status
from capsign.errors import CapsignError, HandleNotChosen
from capsign.handle_selector import HandleSelector
from capsign.handles import HandleCache
from capsign.jobs import Answer, Item, Job, closed_answer
from capsign.results import KeyHandle, Resolution
from capsign.signing_progress import (
    Outcome,
    SigningProgress,
    sole_signature,
    worth_repeating,
)
from capsign.translate import (
    SignerClosedError,
    exception,
    key_handle,
    unresolved,
)

clock = time.monotonic

BETWEEN_ATTEMPTS = Backoff(0.025, 1.0)
"""The wait between attempts, unless the agent advises a longer one."""


@dataclass(frozen=True, slots=True)
class Submit:
    """Sign these jobs. The result is one Answer for each, by the job's deadline."""

    jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Ask:
    """Make one unary call by `deadline`. The result is the response or a FailureError. `effect`: it
    may change something.
    """

    method: str
    request: Any
    deadline: float
    effect: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


Step: TypeAlias = Submit | Ask | Sleep
Found = TypeVar("Found")
Call: TypeAlias = Generator[Step, Any, Found]


def cut_off(step: Step) -> Any:
    """The result of a step whose signer was closed."""
    if isinstance(step, Submit):
        return [closed_answer(job) for job in step.jobs]
    return SignerClosedError(sent=step.effect) if isinstance(step, Ask) else None


def pause(attempt: int, advised_ms: int = 0) -> float:
    """Seconds to wait before attempt number `attempt` (1 is the first repetition)."""
    return max(BETWEEN_ATTEMPTS.delay_s(attempt), advised_ms / 1000)


def listing(book: HandleCache, deadline: float) -> Call[tuple[KeyHandle, ...]]:
    """Fetch the handles of this socket, repeated until the deadline. Raises Unavailable or
    Refused.
    """
    attempt = 0
    while isinstance(
        response := (yield Ask("ListHandles", pb.ListHandlesRequest(), deadline)), FailureError
    ):
        attempt += 1
        delay = pause(attempt, response.retry_after_ms)
        if not worth_repeating(response) or clock() + delay >= deadline:
            raise exception(response)
        yield Sleep(delay)
    return book.store([key_handle(handle) for handle in response.handles])


def chosen(
    book: HandleCache,
    pick: Callable[[HandleSelector], Found | None],
    selector: HandleSelector,
    deadline: float,
) -> Call[Found]:
    """What `pick` finds for the selector. The list of handles is fetched if there is none, and once
    more if no handle fits, because the grant may be new. Raises HandleNotChosen, Refused or
    Unavailable.
    """
    fresh = False
    while True:
        try:
            found = pick(selector)
        except HandleNotChosen:
            if fresh:
                raise
            found = None
        if found is not None:
            return found
        yield from listing(book, deadline)
        fresh = True


def signing(
    book: HandleCache, selector: HandleSelector, items: Sequence[Item], timeout: float, trace: str
) -> Call[list[Outcome]]:
    """Sign the items; returns one outcome for each, in order. Raises an error that concerns all
    items and was found before anything was sent.
    """
    deadline = clock() + timeout
    template = yield from chosen(book, book.template, selector, deadline)
    jobs: Sequence[Job] = ()
    answers: Sequence[Answer] = ()
    if len(items) == 1:
        # the usual call: one item, signed at the first attempt
        jobs = [Job(template, items, deadline, trace=trace)]
        answers = yield Submit(jobs)
        signed = sole_signature(answers[0], items[0], selector)
        if signed is not None:
            return [signed]
    progress = SigningProgress(items, selector)
    attempt = 0
    while True:
        if not jobs:
            jobs = progress.jobs(template, deadline, trace)
            answers = yield Submit(jobs)
        progress.take(jobs, answers, template.group.handle_id)
        jobs = ()
        if not progress.parts:
            return progress.results
        try:
            if progress.handle_unknown:
                book.forget(template.group.handle_id)
                template = yield from chosen(book, book.template, selector, deadline)
            else:
                attempt += 1
                delay = pause(attempt, progress.advised_ms)
                if clock() + delay >= deadline:
                    raise TimeoutError
                yield Sleep(delay)
        except (CapsignError, TimeoutError) as error:
            progress.give_up(error)
            return progress.results


def asking(
    book: HandleCache,
    selector: HandleSelector,
    method: str,
    build: Callable[[str], Any],
    timeout: float,
    *,
    intent_id: bytes = b"",
) -> Call[Any]:
    """Make one unary call about a handle, repeated while that may help. `intent_id` is given for
    ResolveIntent, the only one of them with an effect.

    All of them may be repeated: verifying and listing change nothing, and resolving an intent twice
    has the effect of once.
    """
    deadline = clock() + timeout
    attempt, stale_ids = 0, {selector.handle}
    while True:
        handle_id = yield from chosen(book, book.handle_id, selector, deadline)
        response = yield Ask(method, build(handle_id), deadline, effect=bool(intent_id))
        if not isinstance(response, FailureError):
            return response
        if response.reason == reasons.REASON_HANDLE_UNKNOWN and handle_id not in stale_ids:
            stale_ids.add(handle_id)
            book.forget(handle_id)
            continue
        attempt += 1
        delay = pause(attempt, response.retry_after_ms)
        if not worth_repeating(response, lost=True) or clock() + delay >= deadline:
            raise exception(response, intent_id=intent_id, selector=selector)
        yield Sleep(delay)


def asking_status(timeout: float) -> Call[AgentStatus]:
    """Ask the agent how it is, once. Raises Unavailable."""
    response = yield Ask("GetStatus", pb.GetStatusRequest(), clock() + timeout)
    if isinstance(response, FailureError):
        raise exception(response)
    return agent_status(response)


def receiving(request: pb.GetReceiptRequest, timeout: float) -> Call[pb.GetReceiptResponse]:
    """Fetch a receipt, repeated until there is one or the time is over. Raises Refused or
    Unavailable.
    """
    deadline = clock() + timeout
    attempt = 0
    while isinstance(response := (yield Ask("GetReceipt", request, deadline)), FailureError):
        attempt += 1
        delay = pause(attempt, response.retry_after_ms)
        if not worth_repeating(response, lost=True) or clock() + delay >= deadline:
            raise exception(response, intent_id=request.intent_id)
        yield Sleep(delay)
    found: pb.GetReceiptResponse = response
    return found


def resolving(
    book: HandleCache, selector: HandleSelector, intent_id: bytes, timeout: float
) -> Call[Resolution]:
    """What became of an intent. Raises Unknown if that cannot be learned, also when the agent
    refuses to tell: that refusal says nothing about the intent.
    """
    build = requests.resolution_query(intent_id)
    try:
        response = yield from asking(
            book, selector, "ResolveIntent", build, timeout, intent_id=intent_id
        )
        return requests.resolution(response, intent_id, selector)
    except CapsignError as error:
        raise unresolved(error, intent_id, selector) from None
