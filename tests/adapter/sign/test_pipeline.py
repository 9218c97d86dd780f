"""The signing path on real parts: what is answered, and what the log says of it."""

from __future__ import annotations

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from capsign_adapter.decide import cost
from capsign_adapter.decide.evidence_quota import EvidenceQuota
from capsign_adapter.decide.log_history import rolled_back
from capsign_adapter.decide.rate import Buckets
from capsign_adapter.sign.chunks import CHUNK
from capsign_adapter.sign.clock import Clock, now_ms
from capsign_adapter.sign.fair_scheduler import Turn
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.token.interface import TokenUnavailableError
from capsign_evidence.leaf_reader import Refused, RefusedUnbound, Signed, decode
from capsign_wire.adapter.v1 import admin_pb2
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.failures import FailureError
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.adapter_rig import OTHER, POLICY, intent_at, peer
from support.signed import only


def test_a_signature_has_exactly_one_leaf_that_names_who_what_and_under_which_policy(rig):
    before = rig.store.control().tree_size
    (item,) = rig.sign(b"hello", caller="app")
    assert len(only(item)) == 64
    assert rig.store.control().tree_size == before + 1
    entry = decode(rig.entries()[item.leaf_index])
    assert isinstance(entry, Signed)
    assert entry.signature_hash == hashlib.sha256(only(item)).digest()
    assert (entry.group.workload, entry.group.tenant, entry.group.key) == (
        peer().spiffe_id,
        "demo",
        "orders",
    )
    assert (entry.group.purpose, entry.group.grant, entry.group.caller) == (
        "jwt",
        "orders-jwt",
        "app",
    )
    assert entry.group.policy_digest == rig.policy.digest


def test_the_signature_verifies_under_the_public_key_of_its_context(rig):
    (item,) = rig.sign(b"hello")
    suffix = signing_pb2.ContextSuffix(role="issuer")
    ((key, _),) = rig.keys.of(peer(), rig.handle(), algorithms.ALGORITHM_ED25519, suffix)
    public: Any = load_der_public_key(key.spki)
    public.verify(only(item), b"hello")


def test_the_same_intent_gives_the_same_bytes_and_one_leaf(rig):
    intent = new_intent_id()
    digest = hashlib.sha256(b"x").digest()
    first = rig.sign(digest, intents=[intent], algorithm=algorithms.ALGORITHM_ES256)[0]
    size = rig.store.control().tree_size
    # ES256 draws fresh randomness: only the ledger can give the same bytes again. Another handle,
    # as after a renewal.
    again = rig.sign(
        digest, intents=[intent], algorithm=algorithms.ALGORITHM_ES256, handle=rig.handle()
    )[0]
    assert (only(again), again.leaf_index) == (only(first), first.leaf_index)
    assert again.signatures[0].key == 0, "the group says it once; a thousand repeats need not"
    assert rig.store.control().tree_size == size


def test_the_same_intent_twice_in_one_batch_is_signed_once(rig):
    intent = new_intent_id()
    one, two = rig.sign(b"same", b"same", intents=[intent, intent])
    assert only(one) == only(two)
    assert one.leaf_index == two.leaf_index


def test_an_intent_used_for_something_else_is_refused_and_the_refusal_is_a_leaf(rig):
    intent = new_intent_id()
    rig.sign(b"this", intents=[intent])
    refused = rig.sign(b"that", intents=[intent])[0]
    assert refused.failure.reason == reasons.REASON_INTENT_CONFLICT
    assert not refused.signatures
    entry = decode(rig.entries()[refused.leaf_index])
    assert isinstance(entry, Refused)
    assert entry.reason == reasons.REASON_INTENT_CONFLICT


def test_one_bad_item_never_fails_its_neighbours(rig):
    good = hashlib.sha256(b"x").digest()
    items = rig.sign(good, b"short", good, algorithm=algorithms.ALGORITHM_ES256)
    assert [bool(item.signatures) for item in items] == [True, False, True]
    assert items[1].failure.reason == reasons.REASON_INPUT_MALFORMED


@pytest.mark.parametrize(
    ("group", "reason"),
    [
        ({"algorithm": algorithms.ALGORITHM_ES384}, reasons.REASON_ALGORITHM_NOT_ALLOWED),
        ({"context": signing_pb2.ContextSuffix(role="thief")}, reasons.REASON_CONTEXT_NOT_ALLOWED),
        ({"context": signing_pb2.ContextSuffix()}, reasons.REASON_CONTEXT_NOT_ALLOWED),
        (
            {"context": signing_pb2.ContextSuffix(protocol="tls", role="issuer")},
            reasons.REASON_CONTEXT_NOT_ALLOWED,
        ),
        ({"expected_kid": "another"}, reasons.REASON_KEY_SUPERSEDED),
    ],
)
def test_what_the_handle_does_not_allow_is_not_signed(rig, group, reason):
    (item,) = rig.sign(b"hello", **group)
    assert item.failure.reason == reason
    assert not item.signatures


def test_a_refusal_is_final_for_its_intent(rig):
    """A delayed copy of a refused call must not be signed later, when the policy might allow it."""
    intent = new_intent_id()
    wrong = signing_pb2.ContextSuffix(role="thief")
    assert (
        rig.sign(b"m", intents=[intent], context=wrong)[0].failure.reason
        == reasons.REASON_CONTEXT_NOT_ALLOWED
    )
    assert rig.sign(b"m", intents=[intent])[0].failure.reason == reasons.REASON_INTENT_CONFLICT
    assert (
        rig.sign(b"m", intents=[intent], context=wrong)[0].failure.reason
        == reasons.REASON_CONTEXT_NOT_ALLOWED
    )


def test_a_stolen_handle_is_refused_and_seen(rig):
    stolen = rig.handle()
    (item,) = rig.sign(b"m", who=peer(OTHER), handle=stolen)
    assert item.failure.reason == reasons.REASON_HANDLE_STOLEN
    last = decode(rig.entries()[-1])
    assert isinstance(last, RefusedUnbound)
    assert last.workload == OTHER


def test_a_handle_copied_to_another_key_of_the_same_workload_is_refused(rig):
    (item,) = rig.sign(b"m", who=peer(key=b"other"), handle=rig.handle())
    assert item.failure.reason == reasons.REASON_HANDLE_STOLEN


def test_an_expired_handle_is_refused(rig):
    (item,) = rig.sign(b"m", handle=rig.handle(age_ms=16 * 60_000))
    assert item.failure.reason == reasons.REASON_HANDLE_EXPIRED


def test_a_shorter_life_in_a_new_policy_ends_a_handle_that_signed_a_moment_ago(rig):
    handle = rig.handle(age_ms=120_000)
    assert rig.sign(b"m", handle=handle)[0].signatures
    rig.apply(POLICY.replace("ttl: 15m", "ttl: 3m"))
    assert rig.sign(b"m", handle=handle)[0].signatures
    rig.apply(POLICY.replace("ttl: 15m", "ttl: 2m"))
    (item,) = rig.sign(b"m", handle=handle)
    assert item.failure.reason == reasons.REASON_HANDLE_EXPIRED


def test_uses_are_counted_in_the_store(rig):
    handle = rig.handle("thrice")
    items = rig.sign(b"1", b"2", b"3", b"4", handle=handle)
    assert [bool(item.signatures) for item in items] == [True, True, True, False]
    assert items[3].failure.reason == reasons.REASON_USES_EXHAUSTED


def test_the_rate_is_kept_and_leaves_the_intent_free(rig):
    intents = [new_intent_id() for _ in range(3)]
    handle = rig.handle("slow")
    items = rig.sign(b"1", b"2", b"3", intents=intents, handle=handle)
    assert [bool(item.signatures) for item in items] == [True, True, False]
    assert items[2].failure.reason == reasons.REASON_RATE_LIMITED
    assert items[2].failure.retry_after_ms > 0
    assert rig.store.find(peer().spiffe_id, [intents[2]]) == {}


def test_beyond_the_rate_the_token_has_no_work(rig):
    """A workload held to one signature a second could have the token derive for every context it
    named, at any rate.
    """
    assert all(item.signatures for item in rig.sign(b"1", b"2", handle=rig.handle("slow")))
    derived = []
    rig.keyring.instead(signer=lambda *about: derived.append(about))
    items = rig.sign(
        b"3", b"4", handle=rig.handle("slow")
    )  # another handle: nothing is remembered of it
    assert {item.failure.reason for item in items} == {reasons.REASON_RATE_LIMITED}
    assert not derived


def test_a_batch_that_is_decided_anew_keeps_its_rate_and_is_recorded_once(rig):
    """A revocation of something else moves the epoch under the batch: the second round used to let
    everything pass.
    """
    moved: list[Any]
    commit, moved = rig.store.commit, []

    def late(epoch, drafts, now):
        if not moved:
            moved.append(
                rig.store.revoke(admin_pb2.REVOCATION_KIND_GRANT, "others", lambda _: b"leaf", now)
            )
        return commit(epoch, drafts, now)

    rig.store.instead(commit=late)
    intents = [b"\x00" * 16, *(new_intent_id() for _ in range(3))]
    before = rig.store.control().tree_size
    items = rig.sign(b"0", b"1", b"2", b"3", intents=intents, handle=rig.handle("slow"))
    assert moved
    assert items[0].failure.reason == reasons.REASON_INPUT_MALFORMED
    assert [bool(item.signatures) for item in items] == [False, True, False, False]
    assert {item.failure.reason for item in items[2:]} == {reasons.REASON_RATE_LIMITED}
    # One leaf for the malformed id, one for the signature, one for the revocation.
    assert rig.store.control().tree_size == before + 3


@pytest.mark.parametrize(
    ("intent", "reason"),
    [
        (b"\x00" * 16, reasons.REASON_INPUT_MALFORMED),
        (intent_at(3_600_000), reasons.REASON_INTENT_FROM_FUTURE),
    ],
    ids=["zeros", "from the future"],  # it is random: two workers would have two names for one test
)
def test_an_intent_id_that_is_none_is_refused(rig, intent, reason):
    (item,) = rig.sign(b"m", intents=[intent])
    assert item.failure.reason == reason


@pytest.mark.parametrize("hours", [6, -26, 24 * 365 * 8000])
def test_a_clock_that_is_hours_off_is_named_with_both_times(rig, hours):
    """An application whose clock was wrong was told that its window had closed, and looked for the
    mistake in its own code.
    """
    intent = intent_at(hours * 3_600_000)
    (item,) = rig.sign(b"m", intents=[intent])
    assert item.failure.reason in {reasons.REASON_INTENT_FROM_FUTURE, reasons.REASON_INTENT_EXPIRED}
    assert "the id says" in item.failure.message
    assert "the adapter's clock says 20" in item.failure.message
    assert "clock" in item.failure.message.split("adapter's clock says")[1]  # what to do


def test_an_intent_older_than_the_window_is_never_executed_afresh(rig):
    rig.sign(b"young")
    rig.store.collect_garbage(now_ms(), 1000)
    (item,) = rig.sign(b"m", intents=[intent_at(-3_600_000)])
    assert item.failure.reason == reasons.REASON_INTENT_EXPIRED


def test_an_intent_older_than_the_window_needs_no_collection_to_be_refused(rig):
    (item,) = rig.sign(b"m", intents=[intent_at(-25 * 3_600_000)])
    assert item.failure.reason == reasons.REASON_INTENT_EXPIRED
    (item,) = rig.sign(b"m", intents=[intent_at(-23 * 3_600_000)])
    assert item.signatures


def test_a_revocation_between_decision_and_commit_wins(rig):
    """The batch was decided and signed under the old epoch; the commit finds it moved, and the
    second round refuses.
    """
    revoked: list[Any]
    commit, revoked = rig.store.commit, []

    def late(epoch, drafts, now):
        if not revoked:
            revoked.append(
                rig.store.revoke(
                    admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt", lambda _: b"leaf", now
                )
            )
        return commit(epoch, drafts, now)

    rig.store.instead(commit=late)
    (item,) = rig.sign(b"m")
    assert revoked
    assert item.failure.reason == reasons.REASON_HANDLE_REVOKED
    assert not item.signatures


@pytest.mark.parametrize("after", [False, True])
def test_a_token_that_fails_gives_unavailable_and_binds_nothing(rig, after):
    intent = new_intent_id()
    rig.token.fail("hmac", TokenUnavailableError("gone"), after=after, times=8)
    (item,) = rig.sign(b"m", intents=[intent])
    assert item.failure.reason == reasons.REASON_TOKEN_UNAVAILABLE
    assert rig.store.find(peer().spiffe_id, [intent]) == {}


@pytest.mark.parametrize("error", [StoreUnavailableError("full"), CommitUnknownError("lost")])
def test_a_store_that_fails_releases_nothing(rig, error):
    def broken(*_):
        raise error

    rig.store.instead(commit=broken)
    with pytest.raises(type(error)):
        rig.sign(b"m")


def test_a_batch_above_the_bound_is_refused_before_anything_is_done(rig):
    size = rig.store.control().tree_size
    item = pb.SignItem(intent_id=new_intent_id(), input=b"m")
    groups = [
        pb.SignGroup(algorithm=1, items=[item] * 600),
        pb.SignGroup(algorithm=1, items=[item] * 600),
    ]
    with pytest.raises(FailureError) as caught:
        rig.pipeline.run(
            peer(),
            pb.SignRequest(batch_id=1, handles=[rig.handle()], groups=groups),
            rig.barrier.ticket(lambda: None),
        )
    assert caught.value.reason == reasons.REASON_INPUT_TOO_LARGE
    assert rig.store.control().tree_size == size


def test_floods_of_refusals_do_not_fill_the_log(rig):
    forged = b"x" * 100
    size = rig.store.control().tree_size
    answers = [item for _ in range(10) for item in rig.sign(*([b"m"] * 100), handle=forged)]
    kinds = {item.failure.reason for item in answers}
    assert kinds == {reasons.REASON_HANDLE_FORGED, reasons.REASON_RATE_LIMITED}
    assert rig.store.control().tree_size - size < 700


def batch_of(tokens, role="issuer") -> pb.SignRequest:
    """A group of one item for each handle."""
    suffix = signing_pb2.ContextSuffix(role=role)
    items = [pb.SignItem(intent_id=new_intent_id(), input=b"m") for _ in tokens]
    groups = [
        pb.SignGroup(
            handle_index=index, algorithm=algorithms.ALGORITHM_ED25519, context=suffix, items=[item]
        )
        for index, item in enumerate(items)
    ]
    return pb.SignRequest(batch_id=1, handles=tokens, groups=groups)


def failures(rig, request, who=None) -> set[int]:
    answer = rig.pipeline.run(who or peer(), request, rig.barrier.ticket(lambda: None))
    return {item.failure.reason for group in answer.groups for item in group.items}


def test_forged_handles_are_charged_before_they_are_verified(rig):
    """256 forged handles a batch, on and on: beyond its budget none is verified, and whoever is
    good goes on signing.
    """
    good, others = rig.handle(), rig.handle("others", peer(OTHER))
    rig.sign(b"warm", handle=good)
    read, true = [], rig.verifier.read
    rig.verifier.instead(read=lambda token: read.append(token) or true(token))
    rig.clock = Clock(pause=lambda _: None)
    rig.join()
    seen = set()
    for batch in range(20):
        seen |= failures(
            rig, batch_of([b"forged %d %d" % (batch, number) for number in range(256)])
        )
    assert seen == {reasons.REASON_HANDLE_FORGED, reasons.REASON_RATE_LIMITED}
    assert len(read) * cost.VERIFY <= 5 * 200_000 + cost.VERIFY, "five seconds of a budget"
    assert rig.sign(b"m", handle=good)[0].signatures, "signatures are not charged to it"
    assert rig.sign(b"m", who=peer(OTHER), handle=others)[0].signatures


def test_the_same_forged_handle_in_every_group_is_verified_once(rig):
    read, true = [], rig.verifier.read
    rig.verifier.instead(read=lambda token: read.append(token) or true(token))
    assert failures(rig, batch_of([b"forged"] * 256)) <= {
        reasons.REASON_HANDLE_FORGED,
        reasons.REASON_RATE_LIMITED,
    }
    assert len(read) == 1


def test_refusals_are_charged_and_whoever_is_over_its_budget_waits_for_the_word(rig):
    """1,024 items in a context that is not allowed, on and on: told at once, it would come at once
    again.
    """
    paused: list[Any]
    paused, bad = [], rig.handle()
    rig.clock = Clock(pause=paused.append)
    rig.join()
    inputs = [b"m"] * 1024
    while not paused:
        kinds = {
            item.failure.reason
            for item in rig.sign(
                *inputs, handle=bad, context=signing_pb2.ContextSuffix(role="nobody")
            )
        }
        assert kinds <= {reasons.REASON_CONTEXT_NOT_ALLOWED, reasons.REASON_RATE_LIMITED}
    assert kinds == {reasons.REASON_RATE_LIMITED}
    assert paused[0] > 0


def test_one_pod_does_not_use_up_the_rate_of_its_deployment(rig):
    """The grant allows one a second and two at once; a pod that asked all the time left its
    siblings none.
    """
    pods = [peer(key=b"greedy"), peer(key=b"sibling")]
    greedy, sibling = (rig.handle("slow", pod) for pod in pods)
    context = {"context": signing_pb2.ContextSuffix(role="issuer")}
    rig.sign(b"m", who=pods[1], handle=sibling, **context)
    rig.skipped_ms += 2_000
    for _ in range(20):
        rig.skipped_ms += 100
        rig.sign(b"m", who=pods[0], handle=greedy, **context)
    assert rig.sign(b"m", who=pods[1], handle=sibling, **context)[0].signatures


def in_company(rig):
    """Somebody else is about: large batches are signed and committed in chunks."""
    rig.scheduler.enter(("else", "somebody", b"key"))


def test_where_others_are_about_a_large_batch_is_committed_in_pieces(rig):
    """A commit of a thousand signatures kept everybody's next one waiting for it."""
    sizes, commit = [], rig.store.commit
    rig.store.instead(
        commit=lambda epoch, drafts, now: sizes.append(len(drafts)) or commit(epoch, drafts, now)
    )
    in_company(rig)
    items = rig.sign(*[b"%d" % number for number in range(300)])
    assert all(item.signatures for item in items)
    assert len({item.leaf_index for item in items}) == 300
    assert max(sizes) <= 2 * CHUNK
    assert sum(sizes) == 300


def test_what_was_committed_goes_out_though_the_store_fails_then(rig):
    """The rest did not happen, and may be sent again; nothing is signed without being answered."""
    calls, commit = [], rig.store.commit

    def fails_later(epoch, drafts, now):
        calls.append(len(drafts))
        if len(calls) == 2:
            raise StoreUnavailableError("gone")
        return commit(epoch, drafts, now)

    rig.store.instead(commit=fails_later)
    in_company(rig)
    size = rig.store.control().tree_size
    intents = [new_intent_id() for _ in range(300)]
    items = rig.sign(*([b"m"] * 300), intents=intents)
    done = [item for item in items if item.signatures]
    assert len(done) == calls[0] == rig.store.control().tree_size - size
    assert {item.failure.reason for item in items if not item.signatures} == {
        reasons.REASON_STORE_UNAVAILABLE
    }
    again = rig.sign(*([b"m"] * 300), intents=intents)
    assert [only(item) for item in again[: len(done)]] == [only(item) for item in done]
    assert rig.store.control().tree_size - size == 300


def test_a_refusal_that_was_committed_stays_one_though_an_answer_is_lost_then(rig):
    """It is final. What the lost commit had, refused or not, is unknown."""
    calls, commit = [], rig.store.commit

    def lost_later(epoch, drafts, now):
        calls.append(len(drafts))
        if len(calls) == 2:
            raise CommitUnknownError("lost")
        return commit(epoch, drafts, now)

    rig.store.instead(commit=lost_later)
    in_company(rig)
    good = hashlib.sha256(b"x").digest()
    items = rig.sign(b"short", *([good] * 60), algorithm=algorithms.ALGORITHM_ES256)
    told = [item.failure.reason for item in items if not item.signatures]
    assert told[0] == reasons.REASON_INPUT_MALFORMED
    assert set(told[1:]) == {reasons.REASON_COMMIT_UNKNOWN}
    assert len(told) == 1 + len(items) - calls[0]


def test_what_was_committed_names_its_key_though_the_store_fails_then(rig):
    """It went out as a signature of nobody's: an agent cannot hand that on, and it was lost."""
    calls, commit = [], rig.store.commit

    def fails_later(epoch, drafts, now):
        calls.append(len(drafts))
        if len(calls) == 2:
            raise StoreUnavailableError("gone")
        return commit(epoch, drafts, now)

    rig.store.instead(commit=fails_later)
    in_company(rig)
    request = pb.SignRequest(batch_id=1, handles=[rig.handle()])
    group = request.groups.add(algorithm=algorithms.ALGORITHM_ED25519)
    group.context.role = "issuer"
    for _ in range(100):
        group.items.add(intent_id=new_intent_id(), input=b"m")
    (told,) = rig.pipeline.run(peer(), request, rig.barrier.ticket(lambda: None)).groups
    assert any(item.signatures for item in told.items)
    assert told.signed_by[0].kid


@pytest.mark.parametrize("damaged", [b"\x03later", b"\x02\x00", b"\x01\x00\x01\xff\x00\x00"])
def test_a_stored_answer_that_cannot_be_read_fails_no_neighbour(rig, damaged):
    """While replicas are upgraded, one may find what a later release stored: a repeated call failed
    its whole batch there.
    """
    intents, commit = [new_intent_id() for _ in range(3)], rig.store.commit
    first = rig.sign(b"a", b"b", b"c", intents=intents)

    def later(*asked):
        a, b, c = commit(*asked)
        return [a, b._replace(stored=replace(b.stored, result=damaged)), c]

    rig.store.instead(commit=later)
    a, b, c = rig.sign(b"a", b"b", b"c", intents=intents)
    assert [only(a), only(c)] == [only(first[0]), only(first[2])]
    assert b.failure.reason == reasons.REASON_COMMIT_UNKNOWN
    assert b.leaf_index == first[1].leaf_index
    assert not b.signatures


def test_a_repeat_under_another_key_names_the_key_of_then(rig, monkeypatch):
    """The policy changed meanwhile: the stored bytes say under which one they were made."""
    intents = [new_intent_id(), new_intent_id()]
    first = rig.sign(b"m", intents=intents[:1])[0]
    rig.apply(POLICY.replace("24h", "23h"))
    request = pb.SignRequest(batch_id=1, handles=[rig.handle()])
    group = request.groups.add(algorithm=algorithms.ALGORITHM_ED25519)
    group.context.role = "issuer"
    for intent in intents:
        group.items.add(intent_id=intent, input=b"m")
    (told,) = rig.pipeline.run(peer(), request, rig.barrier.ticket(lambda: None)).groups
    assert only(told.items[0]) == only(first)
    assert [item.signatures[0].key for item in told.items] == [1, 0]
    assert told.signed_by[0].policy_digest == rig.policy.digest
    assert told.signed_by[1].policy_digest != rig.policy.digest


def test_a_revocation_between_two_pieces_wins(rig):
    """What the first chunk signed is in the ledger and does not leave: its handle was revoked
    before the batch was answered.
    """
    handle, calls, commit = rig.handle(), [], rig.store.commit

    def revoked_then(epoch, drafts, now):
        calls.append(len(drafts))
        if len(calls) == 2:
            kind, target = admin_pb2.REVOCATION_KIND_GRANT, "orders-jwt"
            rig.store.revoke(kind, target, lambda _: b"leaf", now_ms())
        return commit(epoch, drafts, now)

    rig.store.instead(commit=revoked_then)
    in_company(rig)
    items = rig.sign(*([b"m"] * 200), handle=handle)
    assert not any(item.signatures for item in items)
    assert {item.failure.reason for item in items} <= {
        reasons.REASON_COMMIT_UNKNOWN,
        reasons.REASON_HANDLE_REVOKED,
    }


def test_a_refusal_that_was_not_committed_is_not_told_as_final(rig):
    """The chunk before it was committed, its own was not: told "refused", and signed when it was
    sent again (I5).
    """
    calls, commit, append = [], rig.store.commit, rig.store.append

    def fails_later(epoch, drafts, now):
        calls.append(len(drafts))
        if len(calls) == 2:
            raise StoreUnavailableError("gone")
        return commit(epoch, drafts, now)

    rig.store.instead(commit=fails_later)
    rig.store.instead(
        append=lambda *_: pytest.fail("after the failure") if calls[1:] else append(*_)
    )
    in_company(rig)
    suffix = signing_pb2.ContextSuffix(role="issuer")
    good = [pb.SignItem(intent_id=new_intent_id(), input=b"m") for _ in range(CHUNK)]
    misfit, fine = (
        pb.SignItem(intent_id=new_intent_id(), input=b"no digest"),
        [pb.SignItem(intent_id=new_intent_id(), input=b"m")],
    )
    more = [pb.SignItem(intent_id=new_intent_id(), input=b"d" * 32) for _ in good]
    ed25519, es256 = algorithms.ALGORITHM_ED25519, algorithms.ALGORITHM_ES256
    groups = [
        pb.SignGroup(handle_index=index, algorithm=algorithm, context=suffix, items=items)
        for index, algorithm, items in (
            (0, ed25519, good),
            (1, ed25519, fine),
            (0, es256, [misfit, *more]),
        )
    ]
    request = pb.SignRequest(batch_id=1, handles=[rig.handle(), b"forged"], groups=groups)
    answer = rig.pipeline.run(peer(), request, rig.barrier.ticket(lambda: None))
    assert all(item.signatures for item in answer.groups[0].items)
    others = [*answer.groups[1].items, *answer.groups[2].items]
    assert {item.failure.reason for item in others} == {reasons.REASON_STORE_UNAVAILABLE}
    assert rig.sign(b"m", intents=[misfit.intent_id])[0].signatures


def revoking(rig, then=lambda call: None):
    """At every second commit something is revoked first that this batch does not need; `then` is
    told which commit it is.
    """
    calls, commit = [], rig.store.commit

    def committing(epoch, drafts, now):
        calls.append(len(drafts))
        if not len(calls) % 2:
            rig.store.revoke(
                admin_pb2.REVOCATION_KIND_GRANT, f"other-{len(calls)}", lambda _: b"leaf", now_ms()
            )
        then(len(calls))
        return commit(epoch, drafts, now)

    rig.store.instead(commit=committing)
    in_company(rig)


def store_is_gone(call):
    if call == 3:
        raise StoreUnavailableError("gone")


@pytest.mark.parametrize(
    ("then", "rest"),
    [
        (store_is_gone, reasons.REASON_STORE_UNAVAILABLE),
        (lambda _: None, reasons.REASON_OVERLOADED),
    ],
    ids=["the store is gone", "revoked again and again"],
)
def test_what_a_piece_signed_before_something_was_revoked_is_not_said_not_to_have_happened(
    rig, then, rest
):
    """Decided anew, the batch failed as a whole, "unavailable: it did not happen", and a part of it
    was in the ledger (I5).
    """
    revoking(rig, then)
    intents = [new_intent_id() for _ in range(200)]
    items = rig.sign(*([b"m"] * 200), intents=intents, handle=rig.handle())
    stored = set(rig.store.find(peer().spiffe_id, intents))
    assert stored
    told = {intent: item.failure.reason for intent, item in zip(intents, items, strict=True)}
    assert {told[intent] for intent in stored} == {reasons.REASON_COMMIT_UNKNOWN}
    assert {told[intent] for intent in intents if intent not in stored} == {rest}
    assert not any(item.signatures for item in items), (
        "its passage was left, and nothing holds a revocation up for it"
    )


def test_what_a_piece_signed_is_not_refused_by_the_next_attempt(rig):
    """The handle's life ended while the batch was decided anew: some of it was signed, and not
    refused.
    """
    true, handle = rig.verifier.read, rig.handle()
    attempts = []

    def over(call):
        if call == 2:
            rig.handles.clear()
            rig.verifier.instead(read=lambda _: attempts.append(1) or true(b"forged"))

    revoking(rig, over)
    intents = [new_intent_id() for _ in range(200)]
    items = rig.sign(*([b"m"] * 200), intents=intents, handle=handle)
    assert attempts
    stored = set(rig.store.find(peer().spiffe_id, intents))
    assert stored
    for intent, item in zip(intents, items, strict=True):
        assert (item.failure.reason == reasons.REASON_COMMIT_UNKNOWN) == (intent in stored)


def test_a_batch_that_is_kept_waiting_for_its_budget_keeps_nobody_else(rig):
    """It counted as something small that finishes at once: each chunk of everybody's large batches
    waited for it, in vain.
    """
    small = []
    rig.clock = Clock(pause=lambda _: small.append(rig.scheduler.small_active))
    rig.join()
    while not small:
        rig.sign(
            *([b"m"] * 1024), handle=rig.handle(), context=signing_pb2.ContextSuffix(role="nobody")
        )
    assert small == [0]


def test_whoever_waits_for_another_ones_derivation_has_no_turn(rig):
    """A token hangs: two batches that wait for what a third asked of it had all turns, and nobody
    signed with keys in memory.
    """
    handle = rig.handle()
    reached, go_on, waiting = threading.Event(), threading.Event(), threading.Event()
    true, yielded = rig.token.hmac, rig.scheduled_token.yielded
    rig.commitments.for_tenant("demo")

    def hanging(label, data):
        reached.set()
        assert go_on.wait(30)
        return true(label, data)

    @contextmanager
    def seen():
        with yielded():
            waiting.set()
            yield

    rig.token.instead(hmac=hanging)
    rig.scheduled_token.instead(yielded=seen)
    in_company(rig)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(rig.sign, b"m", handle=handle)
        assert reached.wait(30)
        second = pool.submit(rig.sign, b"m", handle=handle)
        try:
            assert waiting.wait(30)
            assert rig.scheduler.small.free == 2
            assert rig.scheduler.small_active == 1, "the one that is there for company"
        finally:
            go_on.set()
        assert first.result(30)[0].signatures
        assert second.result(30)[0].signatures


def test_whoever_asks_the_token_for_a_public_key_has_no_turn(rig):
    free, true = [], rig.token.public_key
    rig.token.instead(public_key=lambda label: free.append(rig.scheduler.small.free) or true(label))
    in_company(rig)
    context = signing_pb2.ContextSuffix(role="signer")
    (item,) = rig.sign(
        b"d" * 48,
        handle=rig.handle("release"),
        algorithm=algorithms.ALGORITHM_ES384,
        context=context,
    )
    assert item.signatures
    assert free == [2]


@pytest.mark.parametrize(
    ("takes_s", "asked"), [(10.0, 1), (0.0, 40)], ids=["hangs", "fails at once"]
)
def test_a_token_that_hangs_is_not_asked_once_for_each_signature(rig, monkeypatch, takes_s, asked):
    """Ten seconds each: a batch of a thousand held a thread and a place for three hours."""
    calls: list[Any]
    calls, true = [], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: true() + takes_s * len(calls))

    def hanging(*_):
        calls.append(1)
        raise TokenUnavailableError("no answer")

    rig.token.instead(sign=hanging)
    in_company(rig)
    direct = pb.SignGroup(
        handle_index=0,
        algorithm=algorithms.ALGORITHM_ES384,
        context=signing_pb2.ContextSuffix(role="signer"),
        items=[pb.SignItem(intent_id=new_intent_id(), input=b"d" * 48) for _ in range(40)],
    )
    in_memory = pb.SignGroup(
        handle_index=1,
        algorithm=algorithms.ALGORITHM_ED25519,
        context=signing_pb2.ContextSuffix(role="issuer"),
        items=[pb.SignItem(intent_id=new_intent_id(), input=b"m")],
    )
    handles = [rig.handle("release"), rig.handle()]
    rig.sign(b"warm", handle=handles[1])
    request = pb.SignRequest(batch_id=1, handles=handles, groups=[direct, in_memory])
    answer = rig.pipeline.run(peer(), request, rig.barrier.ticket(lambda: None))
    assert {item.failure.reason for item in answer.groups[0].items} == {
        reasons.REASON_TOKEN_UNAVAILABLE
    }
    assert answer.groups[1].items[0].signatures, "a key in memory needs no token"
    assert len(calls) == asked


def test_a_handle_whose_life_ends_while_a_batch_waits_for_its_turns_signs_no_more(rig):
    """A large batch among many takes long: what it was allowed at its beginning is not what it is
    allowed at its end (I2).
    """
    sizes: list[Any]
    handle, commit, sizes = rig.handle(), rig.store.commit, []
    rig.clock = Clock(now_ms=lambda: now_ms() + (3_600_000 if sizes else 0))
    rig.join()

    def an_hour_passes(epoch, drafts, now):
        results = commit(epoch, drafts, now)
        sizes.append(len(drafts))
        return results

    rig.store.instead(commit=an_hour_passes)
    in_company(rig)
    intents = [new_intent_id() for _ in range(100)]
    items = rig.sign(*([b"m"] * 100), handle=handle, intents=intents)
    assert [bool(item.signatures) for item in items] == [True] * sizes[0] + [False] * (
        100 - sizes[0]
    )
    assert {item.failure.reason for item in items[sizes[0] :]} == {reasons.REASON_HANDLE_EXPIRED}
    assert len(rig.store.find(peer().spiffe_id, intents)) == 100, "and that is final"


def test_keys_that_are_new_are_paid_for_by_turns(rig):
    """A batch whose groups each had a transcript of their own cost ten times the turns that it was
    given.
    """
    spent, handle = [], rig.handle()

    class CountedTurn(Turn):
        __slots__ = ()

        def spend(self, cost_us):
            spent.append(cost_us)
            super().spend(cost_us)

    rig.turn = CountedTurn
    rig.join()
    for _ in range(2):
        rig.sign(
            b"m",
            handle=handle,
            context=signing_pb2.ContextSuffix(role="issuer", transcript=b"t" * 32),
        )
        rig.sign(b"m", handle=rig.handle(), context=signing_pb2.ContextSuffix(role="issuer"))
    assert spent.count(cost.first_use(True)) == 1
    assert spent.count(cost.first_use(False)) == 1


def bounded(rig, mib):
    """The whole evidence of a workload in a day."""
    rig.quota = EvidenceQuota(Buckets(lambda: rig.skipped_ms), mib, mib)
    rig.join()


@pytest.mark.parametrize("what", ["signatures", "refusals"])
def test_what_a_store_did_not_take_is_not_paid_for(rig, what):
    """The store was away for an hour, and who tried again all the while had used up its day's
    evidence when it came back.
    """
    bounded(rig, 1)
    true = rig.store.commit
    context = signing_pb2.ContextSuffix(role="issuer" if what == "signatures" else "nobody")

    def gone(*_):
        raise StoreUnavailableError("gone")

    rig.store.instead(commit=gone)
    handle = rig.handle()
    for _ in range(20):
        rig.rates = Buckets(lambda: 0)
        rig.join()
        with pytest.raises(StoreUnavailableError):
            rig.sign(*([b"m"] * 100), handle=handle, context=context)
    rig.store.instead(commit=true)
    assert rig.sign(b"m", handle=handle)[0].signatures
    rig.quota.reserve(peer(), 900_000)


def test_what_a_store_may_have_taken_stays_paid_for(rig):
    """If the answer to COMMIT is lost, the rows may be there."""
    bounded(rig, 1)

    def lost(*_):
        raise CommitUnknownError("lost")

    rig.store.instead(commit=lost)
    handle = rig.handle()
    told = set()
    for _ in range(20):
        rig.rates = Buckets(lambda: 0)
        rig.join()
        with suppress(CommitUnknownError):
            told |= {item.failure.reason for item in rig.sign(*([b"m"] * 100), handle=handle)}
    assert told == {reasons.REASON_RATE_LIMITED}


def test_refusals_are_evidence_too(rig):
    """Their rate was bounded for a second, and not for a day: a leaf and a row each."""
    rig.quota = EvidenceQuota(Buckets(lambda: 0), 1)
    rig.join()
    wrong = signing_pb2.ContextSuffix(role="nobody")
    handle = rig.handle()
    (told,) = rig.sign(b"m", handle=handle, context=wrong)
    assert told.failure.reason == reasons.REASON_CONTEXT_NOT_ALLOWED
    rig.quota.reserve(peer(), 1 << 20)
    size = rig.store.control().tree_size
    (told,) = rig.sign(b"m", handle=handle, context=wrong)
    assert told.failure.reason == reasons.REASON_RATE_LIMITED
    assert rig.store.control().tree_size == size
    assert rig.sign(b"m", handle=handle)[0].signatures, "signatures are of no account here"


def test_what_is_closed_as_never_sent_is_evidence_too(rig):
    """Each such intent is a row and a leaf: whoever closed them without end filled the disk."""
    rig.quota = EvidenceQuota(Buckets(lambda: 0), 1)
    rig.join()

    def close() -> None:
        asked = pb.ResolveIntentRequest(handle=rig.handle(), intent_id=new_intent_id())
        assert rig.resolutions.of(peer(), asked, rig.snapshots.current).HasField("never")

    close()
    rig.quota.reserve(peer(), 1 << 20)  # on credit, as the last one may be
    size = rig.store.control().tree_size
    with pytest.raises(FailureError, match="MiB of evidence") as caught:
        close()
    assert caught.value.reason == reasons.REASON_RATE_LIMITED
    assert rig.store.control().tree_size == size


def test_only_what_is_new_is_counted_as_written(rig):
    counted = []
    rig.quota = EvidenceQuota(Buckets(lambda: 0), 1, 0, lambda kind, size: counted.append(kind))
    rig.join()
    intent = new_intent_id()
    for _ in range(3):
        assert rig.sign(b"m", intents=[intent])[0].signatures
    assert counted == ["signed"]


def step_back(monkeypatch):
    """The clock on the wall, an hour back."""
    true = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true() - 3_600_000_000_000)


def test_a_grant_is_good_for_more_though_the_clock_on_the_wall_stepped_back(rig, monkeypatch):
    """A drained bucket waited for the clock to come back to where it was: for an hour the grant
    signed nothing.
    """
    assert (
        rig.sign(b"0", b"1", b"2", handle=rig.handle("slow"))[2].failure.reason
        == reasons.REASON_RATE_LIMITED
    )
    step_back(monkeypatch)
    rig.skipped_ms += 1000
    (item,) = rig.sign(b"3", handle=rig.handle("slow"))
    assert item.signatures


def test_refusals_are_recorded_again_though_the_clock_on_the_wall_stepped_back(rig, monkeypatch):
    """A workload that was refused too often before the step had its refusals hidden behind a wait
    for an hour after it.
    """
    flood = rig.sign(*([b"m"] * 1000), handle=b"x" * 100)
    assert flood[-1].failure.reason == reasons.REASON_RATE_LIMITED
    step_back(monkeypatch)
    rig.skipped_ms += 1000
    (item,) = rig.sign(b"m", handle=b"x" * 100)
    assert item.failure.reason == reasons.REASON_HANDLE_FORGED


def test_fifty_threads_with_one_intent_get_identical_bytes(rig):
    intent, digest, handle = new_intent_id(), hashlib.sha256(b"x").digest(), rig.handle()
    size, answers = rig.store.control().tree_size, []

    def call():
        answers.extend(
            rig.sign(digest, intents=[intent], algorithm=algorithms.ALGORITHM_ES256, handle=handle)
        )

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({only(answer) for answer in answers}) == 1
    assert len(answers) == 50
    assert rig.store.control().tree_size == size + 1


@pytest.mark.parametrize("when", ["before the batch", "while it is signed"])
def test_a_log_that_was_rolled_back_records_and_releases_nothing(rig, when):
    """The database failed over to an older copy under a running replica. A signature that is made
    then would be in a history that nobody else sees.
    """
    error = rolled_back("The log has 4 leaves, and the checkpoint in the store is of 9.")
    size = rig.store.control().tree_size
    if when == "before the batch":
        rig.checkpoints.contradicted(error)
    else:
        derived = rig.token.hmac

        def noticed(*arguments):
            rig.checkpoints.contradicted(error)
            return derived(*arguments)

        rig.token.instead(hmac=noticed)
    with pytest.raises(FailureError) as caught:
        rig.sign(b"hello")
    assert caught.value.reason == reasons.REASON_LOG_ROLLED_BACK
    assert "is of 9" in caught.value.detail
    assert rig.store.control().tree_size == size
