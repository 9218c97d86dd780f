"""Applications tell how signatures verified; it is in the agent's journal, and goes upstream."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from capsign_wire.adapter.v1 import evidence_pb2
from capsign_wire.agent.v1 import agent_pb2
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2
from capsign_wire.types.v1 import failures_pb2 as fail
from support.agent_home import Home, first_handle, running, until
from support.fake_adapter import FakeAdapter

ED25519 = algorithms_pb2.ALGORITHM_ED25519


async def known(stub) -> dict:
    """A handle's context, and the key that it has."""
    handle = (await first_handle(stub)).id
    context = signing_pb2.ContextSuffix(protocol="jwt", role="issuer", protocol_version="1")
    where = {"handle_id": handle, "algorithm": ED25519, "context": context}
    found = await stub.GetPublicKeys(agent_pb2.GetPublicKeysRequest(**where))
    return {**where, "kid": found.keys[0].kid}


def reported(adapter: FakeAdapter) -> list[evidence_pb2.AuditRecord]:
    kind = evidence_pb2.AUDIT_KIND_VERIFICATIONS
    return [record for record in adapter.records if record.kind == kind]


async def test_a_report_names_the_version_of_the_key(place: Home, adapter: FakeAdapter) -> None:
    async with running(place):
        stub = place.stub()
        where = await known(stub)
        request = agent_pb2.ReportVerificationsRequest(**where, verified=3, failed=1)
        await stub.ReportVerifications(request)
        await until(lambda: reported(adapter))
    (record,) = reported(adapter)
    assert (record.verified, record.failed, record.algorithm) == (3, 1, ED25519)
    assert record.key_version == 1
    assert record.grant


async def test_a_key_that_the_context_has_not_is_refused(place: Home, adapter: FakeAdapter) -> None:
    """A kid is no text of the caller's own: nothing that the adapter did not state is recorded."""
    async with running(place):
        stub = place.stub()
        where = {**await known(stub), "kid": "somebody-elses"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ReportVerifications(agent_pb2.ReportVerificationsRequest(**where))
        assert FailureError.from_rpc(caught.value).reason == fail.REASON_NOT_FOUND
    assert not reported(adapter)


async def test_reports_without_end_take_no_more_than_refusals_may(
    place: Home, adapter: FakeAdapter
) -> None:
    adapter.faults.audit = lambda _: fail.REASON_STORE_UNAVAILABLE
    place.journal_extra = "max_bytes = 1048576"
    for quiet in range(7):  # its share of the half is an eighth
        place.sockets += f'[[sockets]]\nname = "q{quiet}"\npath = "{place.root}/q{quiet}/a.sock"\n'
    async with running(place) as agent:
        stub = place.stub()
        request = agent_pb2.ReportVerificationsRequest(**await known(stub), verified=1)
        refused: list[FailureError | None] = []
        while not refused:
            calls = [stub.ReportVerifications(request) for _ in range(64)]
            told = await asyncio.gather(*calls, return_exceptions=True)
            refused = [FailureError.from_rpc(one) for one in told if isinstance(one, Exception)]
        assert {one.reason for one in refused} == {fail.REASON_JOURNAL_SHARE_FULL}
        assert agent.journal.size_bytes < 3 << 15
        adapter.faults.audit = lambda _: 0
