"""What breaks between a caller and its signature, each twice: before the effect and after it."""

from __future__ import annotations

import asyncio
import inspect
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType

import capsign
import grpc
import pytest
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as reasons

JWT = {"purpose": "jwt", "algorithm": "ES256"}
MAIL = {"purpose": "mail", "algorithm": "Ed25519"}


@pytest.fixture(params=[True, False], ids=["stream", "unary"])
def coalesce(request):
    return request.param


@pytest.fixture
async def signers(agent, coalesce):
    """(sync, async), both called through `call`."""
    sync, asynchronous = (
        capsign.Signer(agent.path, coalesce=coalesce),
        capsign.AsyncSigner(agent.path, coalesce=coalesce),
    )
    yield sync, asynchronous
    sync.close()
    await asynchronous.close()


@pytest.fixture(params=["sync", "async"])
def call(request, signers):
    sync, asynchronous = signers

    async def run(name, *args, **kwargs):
        if request.param == "async":
            return await getattr(asynchronous, name)(*args, **kwargs)
        return await asyncio.to_thread(getattr(sync, name), *args, **kwargs)

    return run


@pytest.mark.parametrize("kind", ["before", "after"])
async def test_a_broken_connection_is_repeated_with_the_same_intent(call, agent, kind):
    agent.plan(kind, count=3)
    signature = await call("sign", b"m", **JWT)
    await call("verify", b"m", signature, purpose="jwt")
    assert agent.signed[signature.intent_id] == 1


async def test_an_answer_lost_until_the_deadline_is_unknown_and_can_be_resolved(call, agent):
    agent.plan("after", count=10_000)
    with pytest.raises(capsign.Unknown) as caught:
        await call("sign", b"m", timeout=0.3, **JWT)
    assert caught.value.reason in {"ANSWER_LATE", "ANSWER_LOST"}
    assert "esolve" in caught.value.advice
    agent.faults.clear()
    ending = await call("resolve", caught.value)
    await call("verify", b"m", ending.signature, purpose="jwt")
    assert len(agent.signed) == 1


async def test_a_slow_answer_is_unknown_at_the_deadline(call, agent):
    fault = agent.plan("hold")
    with pytest.raises(capsign.Unknown) as caught:
        await call("sign", b"m", timeout=0.2, **JWT)
    assert caught.value.reason == "ANSWER_LATE"
    fault.release.set()
    assert isinstance(await call("resolve", caught.value), capsign.Done)


async def test_an_agent_that_was_never_there_is_unavailable(tmp_path, coalesce):
    with (
        capsign.Signer(tmp_path / "none.sock", coalesce=coalesce) as sync,
        pytest.raises(capsign.Unavailable) as caught,
    ):
        sync.sign(b"m", timeout=0.2, handle="known-already", algorithm="ES256")
    assert len(caught.value.intent_id) == 16
    assert caught.value.reason in {"UPSTREAM_UNREACHABLE", "ANSWER_LATE"}
    async with capsign.AsyncSigner(tmp_path / "none.sock", coalesce=coalesce) as asynchronous:
        with pytest.raises(capsign.Unavailable):
            await asynchronous.sign(b"m", timeout=0.2, **JWT)


async def test_a_call_waits_for_an_agent_that_starts_late(agent, call):
    agent.stop()
    waiting = asyncio.ensure_future(call("sign", b"m", **JWT))
    await asyncio.sleep(0)
    await asyncio.to_thread(agent.start)
    assert await waiting


async def test_a_restarted_agent_has_other_handle_ids_and_nobody_notices(call, agent):
    first = await call("sign", b"m", **JWT)
    await asyncio.to_thread(agent.restart)
    again = await call("sign", b"m", intent_id=first.intent_id, **JWT)
    assert again.value == first.value
    await asyncio.to_thread(agent.restart)
    await call("verify", b"m", again, purpose="jwt")
    results = await call("sign_many", [b"a", b"b"], **MAIL)
    assert all(isinstance(result, capsign.Signature) for result in results)


async def test_a_handle_object_survives_a_restart_and_a_bare_id_does_not(call, agent):
    (jwt, _) = await call("handles")
    await asyncio.to_thread(agent.restart)
    assert await call("sign", b"m", handle=jwt, algorithm="ES256")
    with pytest.raises(capsign.Refused) as caught:
        await call("sign", b"m", handle=jwt.id, algorithm="ES256")
    assert caught.value.reason == "HANDLE_UNKNOWN"


@pytest.mark.parametrize("method", ["sign", "verify"])
async def test_an_agent_may_restart_again_while_the_new_handles_are_listed(call, agent, method):
    """Each life of the agent has ids of its own; the second one that did not count any more was a
    refusal.
    """
    signature = await call("sign", b"m", **MAIL)
    lives = [1, 2]

    def listed():
        if lives:
            lives.pop()
            agent.new_life()

    agent.after_list = listed
    await asyncio.to_thread(agent.restart)
    assert await (
        call("sign", b"n", **MAIL)
        if method == "sign"
        else call("verify", b"m", signature, purpose="mail")
    )
    assert not lives


async def test_a_handle_that_stays_unknown_is_refused_after_one_repetition(call, agent):
    agent.refuse(b"m", *[FailureError(reasons.REASON_HANDLE_UNKNOWN)] * 5)
    with pytest.raises(capsign.Refused) as caught:
        await call("sign", b"m", **JWT)
    assert caught.value.reason == "HANDLE_UNKNOWN"
    assert len(agent.refusals[b"m"]) == 3


@pytest.mark.parametrize(("lost", "kind"), [(False, capsign.Unavailable), (True, capsign.Unknown)])
async def test_a_stale_handle_is_no_refusal_while_the_new_ones_cannot_be_listed(
    call, agent, lost, kind
):
    """The agent restarted and was not ready: the caller was told that it may not sign, and a moment
    later it could.
    """
    agent.refuse(b"m", FailureError(reasons.REASON_HANDLE_UNKNOWN))
    if lost:
        agent.plan("before")

    def not_ready(context):
        if not agent.refusals[b"m"]:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not ready")

    agent.before_list = not_ready
    await asyncio.to_thread(agent.restart)
    with pytest.raises(capsign.CapsignError) as caught:
        await call("sign", b"m", timeout=2.0, **MAIL)
    agent.before_list = lambda _: None
    assert isinstance(caught.value, kind)
    assert "not ready" in caught.value.message
    await asyncio.to_thread(agent.restart)
    assert await call("sign", b"m", intent_id=caught.value.intent_id, **MAIL)


async def test_an_unavailable_item_is_repeated_alone(call, agent):
    agent.refuse(b"b", *[FailureError(reasons.REASON_RATE_LIMITED, retry_after_ms=20)] * 3)
    results = await call("sign_many", [b"a", b"b", b"c"], **MAIL)
    assert all(isinstance(result, capsign.Signature) for result in results)
    assert sorted(agent.signed.values()) == [1, 1, 1]


async def test_advice_to_wait_longer_than_the_deadline_is_raised_at_once(call, agent):
    agent.refuse(b"m", FailureError(reasons.REASON_RATE_LIMITED, retry_after_ms=60_000))
    with pytest.raises(capsign.Unavailable) as caught:
        await call("sign", b"m", **JWT)
    assert (caught.value.reason, caught.value.retry_after) == ("RATE_LIMITED", 60.0)
    assert not agent.signed


async def test_an_unknown_item_is_not_repeated(call, agent):
    agent.refuse(b"m", FailureError(reasons.REASON_COMMIT_UNKNOWN))
    with pytest.raises(capsign.Unknown) as caught:
        await call("sign", b"m", **JWT)
    assert caught.value.reason == "COMMIT_UNKNOWN"
    assert not agent.signed


async def test_a_no_after_a_lost_answer_proves_nothing(call, agent):
    """The first copy was signed and its answer lost; the agent then refused the second copy before
    it asked anybody.
    """
    agent.plan("after")
    agent.plan(
        "failure",
        failure=FailureError(reasons.REASON_PURPOSE_NOT_ALLOWED, "Its configuration changed."),
    )
    with pytest.raises((capsign.Unknown, capsign.Refused)) as caught:
        await call("sign", b"m", timeout=2.0, **JWT)
    assert isinstance(caught.value, capsign.Unknown)
    assert "PURPOSE_NOT_ALLOWED" in caught.value.message
    assert isinstance(await call("resolve", caught.value), capsign.Done)


@pytest.mark.parametrize("away", ["handle unknown", "grant gone", "handle revoked", "agent gone"])
async def test_an_intent_that_cannot_be_resolved_stays_unknown(call, agent, away):
    """It was signed, its answer lost, and the question what became of it refused: the caller heard
    Refused for that intent.
    """
    (jwt, _) = await call("handles")
    agent.plan("after")
    agent.plan("failure", failure=FailureError(reasons.REASON_COMMIT_UNKNOWN))
    with pytest.raises(capsign.Unknown) as caught:
        await call(
            "sign", b"m", handle=jwt.id if away == "handle unknown" else jwt, algorithm="ES256"
        )
    if away == "handle unknown":
        await asyncio.to_thread(agent.restart)
    elif away == "grant gone":
        agent.grants = agent.grants[1:]
        await asyncio.to_thread(agent.restart)
    elif away == "handle revoked":
        agent.resolve_refused = FailureError(reasons.REASON_HANDLE_REVOKED)
        await asyncio.to_thread(agent.restart)
    else:
        agent.stop()
    with pytest.raises(capsign.CapsignError) as asked:
        await call("resolve", caught.value, timeout=0.5)
    assert type(asked.value) is capsign.Unknown
    assert asked.value.reason == {"handle revoked": "HANDLE_REVOKED"}.get(away, asked.value.reason)
    assert asked.value.intent_id == caught.value.intent_id
    assert agent.signed[asked.value.intent_id] == 1


@pytest.mark.parametrize("kind", ["shape", "empty"])
async def test_an_answer_that_does_not_fit_the_question_is_unknown(signers, agent, kind):
    agent.plan(kind)
    sync, _ = signers
    results = sync.sign_many([b"a", b"b"], **MAIL)
    assert isinstance(results[0], capsign.Unknown)
    assert results[0].reason == "INTERNAL"
    assert isinstance(sync.resolve(results[0]), capsign.Done)


async def test_a_message_refused_as_a_whole_is_taken_apart(agent):
    """One caller's part is too much for a newer agent's bounds; those that share the message must
    not pay for it.
    """
    async with capsign.AsyncSigner(agent.path) as signer:
        await signer.handles()
        hold = agent.plan("hold")
        first = asyncio.ensure_future(signer.sign(b"first", **MAIL))
        await asyncio.to_thread(hold.reached.wait, 5)
        agent.plan("failure", failure=FailureError(reasons.REASON_INPUT_TOO_LARGE))
        others = [asyncio.ensure_future(signer.sign(b"%d" % n, **MAIL)) for n in range(5)]
        await asyncio.sleep(0)
        hold.release.set()
        assert all([await first, *[await other for other in others]])


async def test_a_restart_under_load_asks_for_the_handles_a_few_times_only(agent):
    async with capsign.AsyncSigner(agent.path) as signer:
        await asyncio.gather(*[signer.sign(b"%d" % n, **MAIL) for n in range(64)])
        assert agent.listings <= 2, (
            "one for all that began together, one by the stream that connects"
        )
        agent.listings = 0
        hold = agent.plan("hold")
        flying = [asyncio.ensure_future(signer.sign(b"again%d" % n, **MAIL)) for n in range(64)]
        await asyncio.to_thread(hold.reached.wait, 5)
        hold.release.set()
        await asyncio.to_thread(agent.restart)
        assert all(await asyncio.gather(*flying))
        assert agent.listings <= 4


async def test_calls_survive_a_stream_that_keeps_breaking(call, agent):
    """Drops before and after the effect, while many calls run: each intent is signed once and each
    caller gets its own.
    """
    for _ in range(4):
        for kind in ("before", "after"):
            agent.plan(kind)
    messages = [b"%d" % number for number in range(60)]
    signatures = await asyncio.gather(*[call("sign", message, **MAIL) for message in messages])
    for message, signature in zip(messages, signatures, strict=True):
        await call("verify", message, signature, purpose="mail")
    assert set(agent.signed.values()) == {1}
    assert len(agent.signed) == 60
    assert not agent.faults


def test_an_agent_that_is_not_there_is_named_in_the_advice(tmp_path):
    with (
        capsign.Signer(tmp_path / "none.sock") as signer,
        pytest.raises(capsign.Unavailable) as caught,
    ):
        signer.handles(timeout=0.2)
    assert "socket" in caught.value.advice
    assert "adapter" not in str(caught.value)


async def test_cancelling_one_caller_harms_no_neighbour(agent):
    async with capsign.AsyncSigner(agent.path, window=1) as signer:
        await signer.handles()
        hold = agent.plan("hold")
        flying = [asyncio.ensure_future(signer.sign(b"f%d" % n, **MAIL)) for n in range(8)]
        await asyncio.to_thread(hold.reached.wait, 5)
        waiting = [asyncio.ensure_future(signer.sign(b"w%d" % n, **MAIL)) for n in range(8)]
        await asyncio.sleep(0)
        flying[3].cancel()
        waiting[3].cancel()
        hold.release.set()
        results = await asyncio.gather(*flying, *waiting, return_exceptions=True)
        cancelled = [
            index
            for index, result in enumerate(results)
            if isinstance(result, asyncio.CancelledError)
        ]
        assert cancelled == [3, 11]
        assert sum(isinstance(result, capsign.Signature) for result in results) == 14


async def test_a_slow_message_does_not_stop_the_others(call, agent):
    """The window is full of messages that are not answered; what comes later still goes out and is
    answered.
    """
    await call("handles")
    slow, holds = [], []
    for number in range(4):
        holds.append(agent.plan("hold"))
        slow.append(asyncio.ensure_future(call("sign", b"slow%d" % number, **MAIL)))
        assert await asyncio.to_thread(holds[-1].reached.wait, 5)
    assert await call("sign", b"quick", **MAIL)
    for hold in holds:
        hold.release.set()
    assert all([await one for one in slow])


async def test_sixty_four_tasks_share_messages(agent):
    async with capsign.AsyncSigner(agent.path) as signer:
        await signer.sign(b"warm", **MAIL)
        agent.messages.clear()
        results = await asyncio.gather(
            *[signer.sign(b"%d" % n, **(MAIL if n % 2 else JWT)) for n in range(64)],
        )
        assert len({result.intent_id for result in results}) == 64
        assert len(agent.messages) <= 3
        assert max(len(message.groups) for message in agent.messages) == 2
        assert sum(len(group.items) for message in agent.messages for group in message.groups) == 64


def test_fifty_threads_share_messages(agent):
    with capsign.Signer(agent.path) as signer:
        signer.sign(b"warm", **MAIL)
        agent.messages.clear()
        hold = agent.plan("hold")
        second = agent.plan("hold")
        start = threading.Barrier(50)

        def work(number):
            start.wait()
            signature = signer.sign(b"%d" % number, **MAIL)
            return number, signature

        with ThreadPoolExecutor(50) as pool:
            running = [pool.submit(work, number) for number in range(50)]
            hold.reached.wait(5)
            hold.release.set()
            second.release.set()
            done = [future.result() for future in running]
        for number, signature in done:
            signer.verify(b"%d" % number, signature, purpose="mail")
        assert len(agent.messages) < 50
        assert sum(len(group.items) for message in agent.messages for group in message.groups) == 50


def test_closing_tells_waiting_callers_what_is_true(agent):
    signer = capsign.Signer(agent.path, window=1)
    signer.handles()
    hold = agent.plan("hold")
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(signer.sign, b"sent", **MAIL)
        hold.reached.wait(5)
        signer.close()
        with pytest.raises(capsign.Unknown):
            sent.result()
    hold.release.set()


def sought_in_vain(path: Path) -> threading.Event:
    """Hangs up on the first who comes to this socket, which is gone then. Set once one came."""
    came = threading.Event()
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def hang_up():
        visitor, _ = listener.accept()
        path.unlink()
        listener.close()
        visitor.close()
        came.set()

    threading.Thread(target=hang_up, daemon=True).start()
    return came


@pytest.mark.parametrize("method", ["sign", "verify", "handles"])
@pytest.mark.parametrize("kind", [capsign.Signer, capsign.AsyncSigner])
async def test_closing_ends_calls_that_wait_for_an_agent(agent, kind, coalesce, method):
    """They were begun anew until their deadline, each time to be told that the signer was closed,
    or raised what gRPC says.
    """
    signer = kind(agent.path, coalesce=coalesce)
    first = signer.sign(b"m", **MAIL)
    signature = await first if inspect.isawaitable(first) else first
    agent.stop()
    under_way = sought_in_vain(agent.path)
    arguments = {"sign": (b"m",), "verify": (b"m", signature), "handles": ()}[method]
    call = partial(getattr(signer, method), *arguments, timeout=60, **(MAIL if arguments else {}))
    waiting = asyncio.ensure_future(
        call() if inspect.iscoroutinefunction(call.func) else asyncio.to_thread(call)
    )
    assert await asyncio.to_thread(under_way.wait, 10)
    closed = signer.close()
    if closed is not None:
        await closed
    with pytest.raises(capsign.CapsignError, match="closed") as caught:
        await asyncio.wait_for(waiting, 20)
    assert (
        isinstance(caught.value, capsign.Unavailable) or method == "sign"
    )  # one that may have left is unknown
    assert "another signer" in caught.value.advice


@pytest.mark.parametrize("kind", [capsign.Signer, capsign.AsyncSigner])
async def test_closing_ends_calls_that_wait_for_their_next_attempt(agent, kind, coalesce):
    """The agent advised to wait; the call slept on for as long after its signer was closed, and
    only then learnt of it.
    """
    signer = kind(agent.path, coalesce=coalesce)
    agent.refuse(b"m", FailureError(reasons.REASON_RATE_LIMITED, retry_after_ms=30_000))

    def begin(message):
        call = partial(signer.sign, message, timeout=60, **MAIL)
        return asyncio.ensure_future(
            call() if inspect.iscoroutinefunction(call.func) else asyncio.to_thread(call)
        )

    waiting = begin(b"m")
    while agent.refusals[b"m"]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    # the answer to this one comes after that to the first, which goes to sleep meanwhile
    await begin(b"another")
    closed = signer.close()
    if closed is not None:
        await closed
    with pytest.raises(capsign.Unavailable, match="closed"):
        await asyncio.wait_for(asyncio.shield(waiting), 10)


def test_the_deadline_of_a_message_is_the_longest_of_its_callers(agent):
    with capsign.Signer(agent.path) as signer:
        signer.sign(b"m", timeout=7, **MAIL)
        assert 6000 < agent.messages[-1].timeout_ms <= 7000
        signer.sign(b"m", timeout=600, **MAIL)
        assert agent.messages[-1].timeout_ms == 60_000
        with pytest.raises(ValueError, match="above 0"):
            signer.sign(b"m", timeout=0, **MAIL)


def test_a_module_that_is_being_imported_has_no_span(agent, monkeypatch):
    """Another thread imported OpenTelemetry at that moment: the call raised AttributeError."""
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", ModuleType("opentelemetry.trace"))
    with capsign.Signer(agent.path) as signer:
        assert signer.sign(b"m", **MAIL)


def test_the_current_span_is_named_to_the_agent(agent):
    from opentelemetry import trace

    context = trace.SpanContext(0x1234, 0x5678, is_remote=False, trace_flags=trace.TraceFlags(1))
    with capsign.Signer(agent.path) as signer, capsign.Signer(agent.path, coalesce=False) as unary:
        signer.sign(b"m", **MAIL)
        assert agent.messages[-1].traceparent == ""
        with trace.use_span(trace.NonRecordingSpan(context)):
            signer.sign(b"m", **MAIL)
            unary.sign(b"m", **MAIL)
    header = "00-00000000000000000000000000001234-0000000000005678-01"
    assert agent.messages[-1].traceparent == header
    assert agent.metadata[-1]["traceparent"] == header
