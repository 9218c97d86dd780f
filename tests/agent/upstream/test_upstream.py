"""Which replica is asked next, and what a caller hears when none answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo

import pytest
from capsign_agent.config import Upstream as Config
from capsign_agent.identity.credentials import checked
from capsign_agent.upstream.adapter_calls import AdapterCalls
from capsign_agent.upstream.connection_generation import ConnectionGeneration
from capsign_wire.adapter.v1 import evidence_pb2, signing_pb2
from capsign_wire.failures import FailureError
from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_pki import TestCa
from support.fake_adapter import FakeAdapter

QUESTION = signing_pb2.GetPublicKeysRequest(handle=b"h", algorithm=alg.ALGORITHM_ED25519)


@contextmanager
def replicas(ca: TestCa, *places: int | None) -> Iterator[list[str]]:
    """Their addresses. One with 0 places refuses every call before anybody looks at it, as one does
    that is full.
    """
    started = [FakeAdapter(ca, places=each).start() for each in places]
    try:
        yield [f"127.0.0.1:{each.port}" for each in started]
    finally:
        for each in started:
            each.stop()


async def ask(ca: TestCa, addresses: list[str]) -> signing_pb2.GetPublicKeysResponse:
    certificate, key = ca.issue("spiffe://example.test/ns/shop/sa/orders")
    upstream = ConnectionGeneration(
        Config(targets=tuple(addresses), server_name="localhost"),
        checked(ca.pem, certificate, key),
        Metrics(),
    )
    try:
        return await AdapterCalls(lambda: upstream, 10.0).public_keys(QUESTION)
    finally:
        await upstream.close()


async def test_a_replica_whose_places_are_all_taken_is_passed_over(ca: TestCa) -> None:
    """gRPC refuses before a reason of ours is added. The agent took that for an answer in no known
    way, and asked nobody else.
    """
    with replicas(ca, 0, None) as addresses:
        assert (await ask(ca, addresses)).keys


async def test_a_name_that_nobody_resolves_is_named_as_the_cause(ca: TestCa) -> None:
    """That no adapter can be reached sent people to the adapter; it was the DNS of their pod."""
    with pytest.raises(FailureError) as caught:
        await ask(ca, ["no-such-name.invalid:7443"])
    assert caught.value.reason == fail.REASON_UPSTREAM_UNREACHABLE
    assert "cannot be resolved" in caught.value.detail
    assert "dnsPolicy" in caught.value.detail


@pytest.mark.parametrize(
    ("begins", "ends", "word", "told"),
    [
        (-60.0, 60.0, "", "No adapter can be reached."),
        (60.0, 120.0, "certificate_not_yet_valid", "clock"),
        (-120.0, -60.0, "certificate_ended", "expired"),
    ],
)
async def test_a_certificate_that_is_not_valid_now_is_named_as_the_cause(
    ca: TestCa, begins: float, ends: float, word: str, told: str
) -> None:
    certificate, key = ca.issue("spiffe://example.test/ns/shop/sa/orders")
    now = time.time()
    held = replace(checked(ca.pem, certificate, key), begins=now + begins, ends=now + ends)
    upstream = ConnectionGeneration(
        Config(targets=("127.0.0.1:1",), server_name="localhost"), held, Metrics()
    )
    try:
        assert upstream.fault(now) == word
        assert told in upstream.unreachable().detail
    finally:
        await upstream.close()


async def test_where_all_are_full_the_caller_may_come_again(ca: TestCa) -> None:
    with replicas(ca, 0, 0) as addresses, pytest.raises(FailureError) as told:
        await ask(ca, addresses)
    assert told.value.reason == fail.REASON_OVERLOADED
    assert told.value.outcome == fail.OUTCOME_UNAVAILABLE


async def test_records_that_one_replica_wants_no_more_of_go_to_the_next(ca: TestCa) -> None:
    """Each replica counts what a workload has written there, and signatures pay where they are
    made. All of an agent's records went to one replica, though all of them signed: where there are
    many, that one took no more, and a full journal ends signing.
    """
    one, other = (FakeAdapter(ca).start() for _ in range(2))
    one.faults.audit = lambda _: fail.REASON_RATE_LIMITED
    certificate, key = ca.issue("spiffe://example.test/ns/shop/sa/orders")
    addresses = tuple(f"127.0.0.1:{each.port}" for each in (one, other))
    upstream = ConnectionGeneration(
        Config(targets=addresses, server_name="localhost"),
        checked(ca.pem, certificate, key),
        Metrics(),
    )
    calls = AdapterCalls(lambda: upstream, 10.0)
    records = [evidence_pb2.AuditRecord(sequence=1, time_ms=1, kind=evidence_pb2.AUDIT_KIND_OPEN)]
    batch = evidence_pb2.AuditBatch(boot_id=b"b" * 16, records=records).SerializeToString()
    request = evidence_pb2.SubmitAuditRequest(batch=batch)
    try:
        with pytest.raises(FailureError) as told:
            await calls.submit(request)
        assert told.value.reason == fail.REASON_RATE_LIMITED
        assert (await calls.submit(request)).accepted_through == 1
    finally:
        await upstream.close()
        one.stop()
        other.stop()


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        (6, "not valid yet, for this node's clock says"),
        (-6, "has ended, for this node's clock says"),
    ],
    ids=["behind", "ahead"],
)
async def test_a_clock_that_is_hours_off_is_named_as_the_cause(
    ca: TestCa, monkeypatch: pytest.MonkeyPatch, hours: int, words: str
) -> None:
    """The adapter's certificate is good by its own clock. gRPC says of it only that nobody can be
    reached.
    """
    fake = FakeAdapter(ca)

    class Elsewhere(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Elsewhere:
            return super().now(tz) + timedelta(hours=hours)

    with monkeypatch.context() as patched:
        patched.setattr("support.agent_pki.datetime", Elsewhere)
        fake.start()
    try:
        with pytest.raises(FailureError) as told:
            await ask(ca, [f"127.0.0.1:{fake.port}"])
    finally:
        fake.stop()
    assert told.value.reason == fail.REASON_UPSTREAM_UNREACHABLE
    assert words in told.value.detail
