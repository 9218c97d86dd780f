"""What `IdentitySource` promises, held against each of the three sources among its real
surroundings.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from capsign_agent.identity.credentials import Credentials, checked
from capsign_wire.adapter.v1 import evidence_pb2 as pb
from cryptography import x509
from support.agent_home import until
from support.agent_pki import AGENT_ID
from support.identity_rigs import FilesRig, KubernetesRig, Rig, WorkloadApiRig

WITHIN_S = 20.0


@pytest.fixture(
    params=[FilesRig, KubernetesRig, WorkloadApiRig], ids=["files", "kubernetes", "workload-api"]
)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    root = Path(tempfile.mkdtemp(prefix="cs"))
    one = request.param(root)
    yield one
    one.close()
    shutil.rmtree(root)


async def following(changes: object) -> Credentials:
    async with asyncio.timeout(WITHIN_S):
        return await anext(changes)  # type: ignore[call-overload]


def leaf(held: Credentials) -> x509.Certificate:
    return x509.load_pem_x509_certificate(held.certificate)


def kinds(rig: Rig) -> list[int]:
    return [record.kind for record in rig.records]


async def test_what_it_gives_is_complete_and_belongs_together(rig: Rig) -> None:
    async with rig.changes() as changes:
        held = await following(changes)
    assert checked(held.ca, held.certificate, held.key) == held
    names = leaf(held).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [AGENT_ID]
    assert held.ends == leaf(held).not_valid_after_utc.timestamp()
    [authority] = x509.load_pem_x509_certificates(held.ca)
    leaf(held).verify_directly_issued_by(authority)
    assert kinds(rig) == [pb.AUDIT_KIND_IDENTITY_ISSUED]
    assert "PRIVATE" not in repr(held)


async def test_another_follows_and_has_a_key_of_its_own(rig: Rig) -> None:
    async with rig.changes() as changes:
        first = await following(changes)
        rig.replace()
        second = await following(changes)
    assert leaf(first).public_key() != leaf(second).public_key()
    assert first.key != second.key
    assert kinds(rig) == [pb.AUDIT_KIND_IDENTITY_ISSUED, pb.AUDIT_KIND_IDENTITY_RENEWED]


async def test_it_says_once_what_hinders_it_and_never_gives_up(rig: Rig) -> None:
    async with rig.changes() as changes:
        first = await following(changes)
        rig.hinder()
        waiting = asyncio.ensure_future(following(changes))
        await until(lambda: rig.identity_events.last_error)
        assert rig.identity_events.last_error == rig.hindrance
        tried = rig.tries()
        await until(lambda: rig.tries() >= tried + 5)  # still nothing, and it was said once
        assert not waiting.done()
        assert kinds(rig).count(pb.AUDIT_KIND_IDENTITY_REFUSED) == (
            rig.hindrance != "CREDENTIALS_UNUSABLE"
        )
        rig.allow()
        second = await waiting
    assert second.key != first.key
    assert rig.identity_events.last_error == ""
    assert kinds(rig)[-1] == pb.AUDIT_KIND_IDENTITY_RENEWED


async def test_no_key_is_written_anywhere_by_it(rig: Rig) -> None:
    before = {path for path in rig.root.rglob("*") if path.is_file()}
    async with rig.changes() as changes:
        held = await following(changes)
        rig.replace()
        after = await following(changes)
    for path in {path for path in rig.root.rglob("*") if path.is_file()} - before:
        data = path.read_bytes()
        assert b"PRIVATE" not in data
        assert held.key.splitlines()[1] not in data
        assert after.key.splitlines()[1] not in data


async def test_it_ends_when_it_is_cancelled_and_leaves_nothing_running(rig: Rig) -> None:
    async def follow() -> None:
        async with rig.changes() as changes:
            async for _ in changes:
                arrived.set()

    arrived = asyncio.Event()
    task = asyncio.create_task(follow())
    async with asyncio.timeout(WITHIN_S):
        await arrived.wait()
        others = asyncio.all_tasks() - {task, asyncio.current_task()}
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: not (asyncio.all_tasks() - {asyncio.current_task()} - others))


async def test_a_sequence_that_is_told_may_be_of_no_interest(rig: Rig) -> None:
    source = rig.source()
    for sequence in (0, 1, 1, 0):
        source.authorities_changed(sequence)
