"""Tokens: minted, narrowed, refused. An appended block can forbid and never allow."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from biscuit_auth import BiscuitBuilder, KeyPair
from capsign_adapter.decide import biscuits
from capsign_adapter.decide.admission import Operation
from capsign_adapter.decide.biscuits import MAX_BLOCKS, MAX_OPERATIONS, Mint, Verifier
from capsign_adapter.decide.handle_cache import HandleCache
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2 as why
from hypothesis import given, settings
from hypothesis import strategies as st
from support.handles import KEY_HASH, NOW, ORDERS, append, date, events

MINT = Mint(bytes(range(32)))
VERIFIER = Verifier(MINT.public_key)
TOKEN = MINT.mint(events())
SEND = Operation("ES256", "webhook", "sender", "1", transcript=False)


def verify(token, workload=ORDERS, key_hash=KEY_HASH, now_ms=NOW, skew_ms=0, verifier=VERIFIER):
    return verifier.verify(token, workload, key_hash, now_ms, skew_ms)


def refused(reason, call, *arguments, **named):
    with pytest.raises(FailureError) as caught:
        call(*arguments, **named)
    assert why.Reason.Name(caught.value.reason) == why.Reason.Name(reason)
    return caught.value


def test_what_was_minted_is_what_is_read():
    for each in (
        events(),
        events(rate_per_second=7, burst=9, max_uses=11, transcript=3, min_custody=3),
        events(protocols=events().protocols[:1], algorithms=frozenset({2})),
    ):
        assert verify(MINT.mint(each)).capability == each


def test_the_mint_is_its_seed():
    assert Mint(bytes(range(32))).public_key == MINT.public_key
    assert len(MINT.public_key) == 32
    assert Mint(bytes(32)).public_key != MINT.public_key
    refused(why.REASON_HANDLE_FORGED, verify, Mint(bytes(32)).mint(events()))


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_a_seed_of_another_length_is_refused(seed):
    with pytest.raises(ValueError, match="seed is 32 bytes"):
        Mint(seed)


def test_stolen_forged_and_expired_are_told_apart():
    refused(why.REASON_HANDLE_STOLEN, verify, TOKEN, workload=ORDERS + "2")
    refused(why.REASON_HANDLE_STOLEN, verify, TOKEN, key_hash=bytes(32))
    end = events().expires_ms
    assert verify(TOKEN, now_ms=end - 1)
    refused(why.REASON_HANDLE_EXPIRED, verify, TOKEN, now_ms=end)
    # What is both stolen and expired is stolen: the thief learns nothing about its life.
    refused(why.REASON_HANDLE_STOLEN, verify, TOKEN, key_hash=bytes(32), now_ms=end)


def test_skew_forgives_a_replica_ahead_and_never_lengthens_a_life():
    refused(why.REASON_HANDLE_EXPIRED, verify, TOKEN, now_ms=NOW - 1)
    assert verify(TOKEN, now_ms=NOW - 1, skew_ms=1)
    refused(why.REASON_HANDLE_EXPIRED, verify, TOKEN, now_ms=NOW - 2, skew_ms=1)
    refused(why.REASON_HANDLE_EXPIRED, verify, TOKEN, now_ms=events().expires_ms, skew_ms=30_000)


@pytest.mark.parametrize(
    "token",
    [TOKEN, append(MINT, TOKEN, 'check if role($r), $r == "sender"')],
    ids=["plain", "narrowed"],
)
def test_no_flipped_bit_is_accepted(token):
    for bit in range(len(token) * 8):
        altered = bytearray(token)
        altered[bit // 8] ^= 1 << bit % 8
        refused(why.REASON_HANDLE_FORGED, VERIFIER.read, bytes(altered))


@settings(max_examples=300)
@given(st.binary(max_size=5000))
def test_any_bytes_are_refused(data):
    with pytest.raises(FailureError) as caught:
        VERIFIER.read(data)
    assert caught.value.reason in {why.REASON_HANDLE_FORGED, why.REASON_INPUT_TOO_LARGE}


@settings(max_examples=100)
@given(st.integers(0, len(TOKEN)), st.binary(min_size=1, max_size=8))
def test_a_token_cut_or_lengthened_is_refused(at, more):
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, TOKEN[:at] + more + TOKEN[at:])
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, TOKEN[: at - 1])


@pytest.mark.parametrize("number", [b"\x00", b"\x07", b"\xff\x01"])
def test_a_root_key_id_in_front_of_a_good_token_is_refused(number):
    """No signature covers it and the library keeps it, so each number was another spelling of the
    same handle: what is cached and charged by a token's bytes was so for each of them.
    """
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, b"\x08" + number + TOKEN)


def test_a_token_whose_narrowing_was_cut_off_is_refused():
    # The last block's signature covers the key of the next: taking a block away needs a key that
    # its holder gave up.
    narrowed = append(MINT, TOKEN, 'check if role($r), $r == "sender"')
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, narrowed[: len(TOKEN)])


def test_another_kind_of_token_of_our_own_mint_is_refused():
    pair = KeyPair()
    verifier = Verifier(bytes(pair.public_key.to_bytes()))
    for code in ('user("olga")', "handle(2, hex:00)", 'handle(1, hex:00, "g", "t", "k", "p")'):
        token = bytes(BiscuitBuilder(code).build(pair.private_key).to_bytes())
        refused(why.REASON_HANDLE_FORGED, verifier.read, token)


NARROWINGS = [
    (
        'check if algorithm($a), ["ES256", "HS256"].contains($a)',
        {"algorithm": "Ed25519"},
        why.REASON_ALGORITHM_NOT_ALLOWED,
    ),
    (
        'check if algorithm($a), $a == "ES256"',
        {"algorithm": "HS256"},
        why.REASON_ALGORITHM_NOT_ALLOWED,
    ),
    ('check if role($r), $r == "sender"', {"role": "relay"}, why.REASON_CONTEXT_NOT_ALLOWED),
    (
        'check if protocol($p), ["webhook"].contains($p)',
        {"protocol": "outbox", "role": "writer"},
        why.REASON_CONTEXT_NOT_ALLOWED,
    ),
    ('check if version($v), $v == "1"', {"protocol_version": "2"}, why.REASON_CONTEXT_NOT_ALLOWED),
]


@pytest.mark.parametrize(("statement", "change", "reason"), NARROWINGS)
def test_a_narrowed_token_allows_less(statement, change, reason):
    outside = replace(SEND, **change)
    verify(TOKEN).require(outside, NOW)
    narrowed = verify(append(MINT, TOKEN, statement))
    narrowed.require(SEND, NOW)
    refused(reason, narrowed.require, outside, NOW)
    refused(reason, narrowed.require, outside, NOW)


def test_a_narrowed_token_says_so_for_it_must_not_be_renewed():
    # Renewing gives a token as the grant says. Were a narrowed one taken, its holder would shed the
    # narrowing.
    assert not verify(TOKEN).narrowed
    assert verify(append(MINT, TOKEN, 'check if role($r), $r == "sender"')).narrowed


def test_a_shorter_life_holds_from_its_first_millisecond_also_for_a_remembered_verdict():
    end = NOW + 10_000
    token = append(MINT, TOKEN, "check if time($t), $t < {end}", end=date(end))
    handle = verify(token)
    assert handle.expires_ms == end
    handle.require(SEND, end - 1)
    refused(why.REASON_HANDLE_EXPIRED, handle.require, SEND, end)
    refused(why.REASON_HANDLE_EXPIRED, verify, token, now_ms=end)
    # Datalog itself says so too, not only the comparison before it.
    refused(why.REASON_HANDLE_EXPIRED, handle.evaluate, SEND, end)


def test_a_longer_life_is_not_to_be_had():
    token = append(MINT, TOKEN, "check if time($t), $t < {end}", end=date(NOW + 10**9))
    handle = verify(token)
    assert handle.expires_ms == events().expires_ms
    refused(why.REASON_HANDLE_EXPIRED, verify, token, now_ms=events().expires_ms)
    refused(why.REASON_HANDLE_EXPIRED, handle.evaluate, SEND, events().expires_ms)


WIDENINGS = [
    'may_use("ES384")',
    'may_play("webhook", "root")',
    "life(0, 9999999999999)",
    'holder("spiffe://capsign.test/thief", hex:00)',
    "now_ms(0)",
    'algorithm("ES256")',
    'role("sender")',
    "may_use($a) <- algorithm($a)",
]
STRANGE = [
    'check if role("sender")',
    'check if role($r), $r == "sender" or role("x")',
    'check if role($r), $s == "sender", role($s)',
    'check all role($r), $r == "sender"',
    'reject if role($r), $r == "x"',
    'check if role($r), $r != "x"',
    "check if time($t), $t > 2020-01-01T00:00:00Z",
    "check if time($t), $t < 2020-01-01T00:00:00Z || true",
    'check if role($r), $r == "sender" trusting previous',
    'check if role($r), $r == "a b"',
    "check if may_use($a), may_use($b), may_use($c), may_use($d), $a == $b",
    "check if true",
]


@pytest.mark.parametrize("statement", [*WIDENINGS, *STRANGE])
def test_a_block_in_other_words_is_refused(statement):
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, append(MINT, TOKEN, statement))
    refused(
        why.REASON_HANDLE_FORGED,
        VERIFIER.read,
        append(MINT, TOKEN, f'check if role($r), $r == "sender"; {statement}'),
    )


@pytest.mark.parametrize("statement", WIDENINGS)
def test_such_a_block_would_gain_nothing_even_if_its_words_were_let_through(statement, monkeypatch):
    # The vocabulary bounds work; authority does not rest on it. Biscuit's scoping alone must hold.
    monkeypatch.setattr(biscuits, "_appended", lambda source: None)
    handle = verify(append(MINT, TOKEN, statement))
    assert handle.capability == events()
    for outside in (
        Operation("ES384", "webhook", "sender", "1", transcript=False),
        Operation("ES256", "webhook", "root", "1", transcript=False),
    ):
        with pytest.raises(FailureError):
            handle.require(outside, NOW)
    with pytest.raises(FailureError):
        handle.evaluate(SEND, events().expires_ms)


def test_size_blocks_and_statements_are_bounded():
    token, pin = TOKEN, 'check if role($r), $r == "sender"'
    for _ in range(MAX_BLOCKS - 1):
        token = append(MINT, token, pin)
    verify(token).require(SEND, NOW)
    refused(why.REASON_INPUT_TOO_LARGE, VERIFIER.read, append(MINT, token, pin))
    verify(append(MINT, TOKEN, ";".join([pin] * 16)))
    refused(why.REASON_HANDLE_FORGED, VERIFIER.read, append(MINT, TOKEN, ";".join([pin] * 17)))
    refused(why.REASON_INPUT_TOO_LARGE, VERIFIER.read, bytes(4097))
    with pytest.raises(ValueError, match="split it"):
        MINT.mint(events(purpose="p" * 4096))


def test_an_evaluation_that_does_not_end_is_a_failure_and_no_refusal():
    handle = verify(TOKEN)
    handle.max_time = timedelta(0)
    error = refused(why.REASON_OVERLOADED, handle.require, SEND, NOW)
    assert error.outcome == why.OUTCOME_UNAVAILABLE
    refused(why.REASON_OVERLOADED, Verifier(MINT.public_key, timedelta(0)).read, TOKEN)


def test_remembered_operations_are_bounded_and_failures_are_not_remembered():
    handle = verify(TOKEN)
    for index in range(3 * MAX_OPERATIONS):
        for algorithm in ("ES256", "Ed25519"):
            handle.require(
                Operation(algorithm, "webhook", "sender", "1", transcript=bool(index % 2)), NOW
            )
        with pytest.raises(FailureError):
            handle.require(Operation("ES256", "webhook", f"r{index}", "1", transcript=False), NOW)
    assert len(handle.allowed) == 4


def test_no_failure_repeats_the_token():
    for call in (lambda: VERIFIER.read(TOKEN[:-1]), lambda: verify(TOKEN, workload="spiffe://x/y")):
        with pytest.raises(FailureError) as caught:
            call()
        assert TOKEN[:16].hex() not in repr(caught.value)
        assert caught.value.__cause__ is None


class Counting:
    """A verifier that counts."""

    def __init__(self):
        self.calls = 0

    def read(self, token):
        self.calls += 1
        return VERIFIER.read(token)


def test_a_verdict_is_worked_out_once_and_asked_of_whom_each_time():
    counting = Counting()
    verdicts = HandleCache(counting)
    first = verdicts.verify(TOKEN, ORDERS, KEY_HASH, NOW, 0)
    assert verdicts.verify(TOKEN, ORDERS, KEY_HASH, NOW, 0) is first
    assert counting.calls == 1
    # A cached handle in a thief's hands is as stolen as a fresh one.
    refused(why.REASON_HANDLE_STOLEN, verdicts.verify, TOKEN, ORDERS, bytes(32), NOW, 0)
    refused(why.REASON_HANDLE_STOLEN, verdicts.verify, TOKEN, ORDERS + "2", KEY_HASH, NOW, 0)
    refused(
        why.REASON_HANDLE_EXPIRED, verdicts.verify, TOKEN, ORDERS, KEY_HASH, events().expires_ms, 0
    )
    assert counting.calls == 1


def test_a_token_that_is_none_is_read_once_however_often_it_is_sent():
    """256 forged handles in one batch left others 9 % of their rate: each time, each of them was
    verified anew.
    """
    charged: list[Any]
    counting, charged = Counting(), []
    verdicts = HandleCache(counting, refused_capacity=2)
    for _ in range(256):
        refused(
            why.REASON_HANDLE_FORGED,
            verdicts.verify,
            TOKEN[:-1],
            ORDERS,
            KEY_HASH,
            NOW,
            0,
            charged.append,
        )
    assert (counting.calls, len(charged)) == (1, 1)
    for index in range(5):
        refused(
            why.REASON_HANDLE_FORGED, verdicts.verify, b"none %d" % index, ORDERS, KEY_HASH, NOW, 0
        )
    refused(
        why.REASON_HANDLE_FORGED,
        verdicts.verify,
        TOKEN[:-1],
        ORDERS,
        KEY_HASH,
        NOW,
        0,
        charged.append,
    )
    assert (counting.calls, len(charged)) == (7, 2), "what is remembered is bounded"


@pytest.mark.parametrize(
    ("who", "key", "now", "reason"),
    [
        (ORDERS, bytes(32), NOW, why.REASON_HANDLE_STOLEN),
        (ORDERS + "2", KEY_HASH, NOW, why.REASON_HANDLE_STOLEN),
        (ORDERS, KEY_HASH, NOW + 10**9, why.REASON_HANDLE_EXPIRED),
    ],
)
def test_a_handle_that_is_stolen_or_over_is_read_once_too(who, key, now, reason):
    """Only what passed was remembered, so a stolen handle cost as much the thousandth time as the
    first.
    """
    charged: list[Any]
    counting, charged = Counting(), []
    verdicts = HandleCache(counting)
    for _ in range(10):
        refused(reason, verdicts.verify, TOKEN, who, key, now, 0, charged.append)
    assert (counting.calls, len(charged)) == (1, 1)


def test_who_cannot_be_charged_has_nothing_verified():
    counting = Counting()

    def broke(_):
        raise FailureError(why.REASON_RATE_LIMITED)

    refused(
        why.REASON_RATE_LIMITED,
        HandleCache(counting).verify,
        TOKEN,
        ORDERS,
        KEY_HASH,
        NOW,
        0,
        broke,
    )
    assert counting.calls == 0


def test_what_the_machine_lacked_is_not_remembered_against_a_good_handle(monkeypatch):
    """Once "forged" was in the cache, its rightful owner heard so until something was revoked."""
    verdicts, true = HandleCache(VERIFIER), biscuits.capability_in

    def starved(_):
        raise MemoryError

    monkeypatch.setattr(biscuits, "capability_in", starved)
    with pytest.raises(MemoryError):
        verdicts.verify(TOKEN, ORDERS, KEY_HASH, NOW, 0)
    monkeypatch.setattr(biscuits, "capability_in", true)
    assert verdicts.verify(TOKEN, ORDERS, KEY_HASH, NOW, 0)


def test_verdicts_are_bounded_and_cleared():
    counting = Counting()
    verdicts = HandleCache(counting, capacity=2)
    tokens = [MINT.mint(events(serial=bytes([index]) * 16)) for index in range(3)]
    for token in tokens:
        verdicts.verify(token, ORDERS, KEY_HASH, NOW, 0)
    assert len(verdicts) == 2
    verdicts.verify(tokens[0], ORDERS, KEY_HASH, NOW, 0)
    assert counting.calls == 4
    verdicts.clear()
    assert len(verdicts) == 0
    refused(why.REASON_HANDLE_FORGED, verdicts.verify, TOKEN[:-1], ORDERS, KEY_HASH, NOW, 0)
    assert len(verdicts) == 0


def test_a_verdict_from_before_a_clear_does_not_come_back_after_it():
    class ClearedMeanwhile(Counting):
        def read(self, token):
            verdicts.clear()
            return super().read(token)

    verdicts = HandleCache(ClearedMeanwhile())
    verdicts.verify(TOKEN, ORDERS, KEY_HASH, NOW, 0)
    assert len(verdicts) == 0
