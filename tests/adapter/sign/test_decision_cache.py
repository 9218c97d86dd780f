"""A decision that is used again must be one that would be made again."""

from __future__ import annotations

import dataclasses

import pytest
from capsign_adapter.sign import decision_cache as module
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.decision_cache import DecisionCache, Name, name_of
from capsign_adapter.sign.scope import Signable
from capsign_adapter.sign.snapshot import Snapshots
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import OTHER, AdapterRig, peer


@pytest.fixture
def decided(rig):
    """Counts how often a group was really decided."""
    count, signable = [0], rig.admission.signable

    def counting(*arguments):
        count[0] += 1
        return signable(*arguments)

    rig.admission.instead(signable=counting)
    return count


def test_the_same_question_is_decided_once(rig, decided):
    handle = rig.handle()
    first, second = rig.sign(b"m", handle=handle), rig.sign(b"n", handle=handle)
    assert first[0].signatures
    assert second[0].signatures
    assert decided == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"who": peer(OTHER)},
        {"who": peer(key=b"another key")},
        {"algorithm": algorithms.ALGORITHM_ES384},
        {"context": signing_pb2.ContextSuffix(role="thief")},
        {"context": signing_pb2.ContextSuffix(role="issuer", protocol="tls")},
        {"expected_kid": "another"},
    ],
)
def test_a_question_that_differs_in_anything_is_decided_for_itself(rig, change):
    handle = rig.handle()
    assert rig.sign(b"m", handle=handle)[0].signatures
    assert not rig.sign(b"m", handle=handle, **change)[0].signatures


def test_a_revocation_ends_what_was_decided_before_it(rig):
    handle = rig.handle()
    assert rig.sign(b"m", handle=handle)[0].signatures
    rig.store.revoke(admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt", lambda _: b"leaf", now_ms())
    assert rig.sign(b"m", handle=handle)[0].failure.reason == reasons.REASON_HANDLE_REVOKED


def signable_of(rig: AdapterRig, handle: bytes) -> tuple[Name, Signable]:
    verified = rig.admission.verify(handle, peer(), rig.policy, now_ms())
    group = pb.SignGroup(
        algorithm=algorithms.ALGORITHM_ED25519, context=signing_pb2.ContextSuffix(role="issuer")
    )
    admitted = rig.admission.admit(verified, rig.snapshots.current, group, now_ms())
    return name_of(handle, peer(), group), rig.admission.signable(
        admitted, rig.snapshots.current, peer(), group
    )


def test_it_is_forgotten_after_a_second_or_when_the_handle_ends(rig):
    name, signable = signable_of(rig, rig.handle())
    cache, snapshot = DecisionCache(), rig.snapshots.current
    cache.put(name, snapshot, signable, 1000)
    assert cache.get(name, snapshot, 1000 + module.KEPT_MS - 1) is signable
    assert cache.get(name, snapshot, 1000 + module.KEPT_MS) is None
    shorter = dataclasses.replace(signable, until_ms=1500)
    cache.put(name, snapshot, shorter, 1000)
    assert cache.get(name, snapshot, 1499) is shorter
    assert cache.get(name, snapshot, 1500) is None
    assert cache.sweep(1500) == 1
    assert cache.sweep(1500) == 0


def test_a_clock_that_was_put_back_keeps_no_subkey_for_the_hours_that_come_again(rig):
    """The decision was good until a moment that is hours away now: neither it nor the subkey in it
    stays that long.
    """
    name, signable = signable_of(rig, rig.handle())
    cache, snapshot = DecisionCache(), rig.snapshots.current
    cache.put(name, snapshot, signable, 10_000_000)
    assert cache.get(name, snapshot, 1000) is None
    assert cache.sweep(1000) == 1


def test_another_snapshot_is_another_question_even_of_the_same_epoch(rig):
    name, signable = signable_of(rig, rig.handle())
    cache = DecisionCache()
    cache.put(name, rig.snapshots.current, signable, 1000)
    assert cache.get(name, Snapshots(rig.store).current, 1000) is None


def test_it_is_bounded(rig):
    name, signable = signable_of(rig, rig.handle())
    cache, snapshot = DecisionCache(capacity=2), rig.snapshots.current
    for number in range(3):
        cache.put((bytes([number]), *name[1:]), snapshot, signable, 1000)
    assert cache.get((b"\x00", *name[1:]), snapshot, 1000) is None
    assert cache.get((b"\x02", *name[1:]), snapshot, 1000) is signable
