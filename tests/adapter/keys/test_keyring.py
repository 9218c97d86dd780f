"""The keyring: one derivation per context, nothing kept past a clear, custody told truly, failures
typed.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import Any

import pytest
from capsign_adapter.algorithms.kinds import Feature
from capsign_adapter.decide.context import Context
from capsign_adapter.keys import provision
from capsign_adapter.keys.attestation import verify_attestation
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.token.interface import (
    KeyMissingError,
    PinRejectedError,
    TokenError,
    TokenUnavailableError,
)
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as pb
from capsign_wire.types.v1 import failures_pb2 as reasons
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.fake_token import FakeToken
from support.instances import key_in
from support.interposed import Interposed

DERIVABLE = tuple(row.number for row in ALGORITHMS.values() if row.derivable)
DIRECT = tuple(
    row.number for row in ALGORITHMS.values() if pb.CUSTODY_CLASS_HSM_DIRECT in row.custody
)
NAMES = {"ids": lambda number: ALGORITHMS[number].name}
MESSAGE = b"a message"


class Clock:
    now_ms = 0

    def __call__(self):
        return self.now_ms


@pytest.fixture
def token():
    return Interposed(FakeToken(features=frozenset({Feature.ED25519, Feature.RSA_PSS})))


@pytest.fixture
def row(token):
    return provision.make_derived(token, "acme", "billing", 1, DERIVABLE, 0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ring(token, row, clock):
    token.calls.clear()
    return Keyring(token, CacheSettings(max_entries=8, max_age_ms=1000), clock)


def context(number, **changes):
    name = ALGORITHMS[number].name
    return replace(Context("acme", "billing", 1, "jwt", name, "jwt", "issuer", "1"), **changes)


def signer(ring, row, number, **changes):
    c = context(number, **changes)
    return ring.signer(row, c.purpose, number, c.digest())


def upstream(number):
    """What the agent would send for MESSAGE; for ML-DSA any 64 bytes will do."""
    return {
        pb.UPSTREAM_MESSAGE: MESSAGE,
        pb.UPSTREAM_SHA256: hashlib.sha256(MESSAGE).digest(),
        pb.UPSTREAM_SHA384: hashlib.sha384(MESSAGE).digest(),
        pb.UPSTREAM_MU: hashlib.sha512(MESSAGE).digest(),
    }[ALGORITHMS[number].upstream]


def verify(number, spki, signature):
    public: Any = load_der_public_key(spki)
    match number:
        case pb.ALGORITHM_ED25519:
            public.verify(signature, MESSAGE)
        case pb.ALGORITHM_ES256:
            public.verify(signature, MESSAGE, ec.ECDSA(hashes.SHA256()))
        case pb.ALGORITHM_ES384:
            public.verify(signature, MESSAGE, ec.ECDSA(hashes.SHA384()))
        case pb.ALGORITHM_PS256:
            public.verify(
                signature, MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
            )
        case pb.ALGORITHM_RS256:
            digest = upstream(number)
            public.verify(signature, digest, padding.PKCS1v15(), utils.Prehashed(hashes.SHA256()))
        case pb.ALGORITHM_ML_DSA_65:
            public.verify_mu(signature, upstream(number))
        case _:
            raise AssertionError(f"no public half: {number}")


@pytest.mark.parametrize(
    "number", [number for number in DERIVABLE if number != pb.ALGORITHM_HS256], **NAMES
)
def test_a_derived_signer_signs_what_its_public_key_verifies(ring, row, number):
    s = signer(ring, row, number)
    signature = s.sign(upstream(number))
    verify(number, s.spki, signature)
    assert len(signature) <= ALGORITHMS[number].max_signature
    assert (s.custody, s.algorithm, s.version) == (pb.CUSTODY_CLASS_ADAPTER_MEMORY, number, 1)
    assert s.context_digest == context(number).digest()


@pytest.mark.parametrize("number", DIRECT, **NAMES)
def test_a_direct_signer_signs_in_the_token(token, ring, number):
    row = provision.make_direct(token, "acme", f"direct-{number}", 1, number, 0)
    s = signer(ring, row, number)
    token.calls.clear()
    verify(number, s.spki, s.sign(upstream(number)))
    assert token.calls == {"sign": 1}
    assert (s.custody, s.context_digest) == (pb.CUSTODY_CLASS_HSM_DIRECT, b"")


def test_hs256_stays_inside_a_token_that_can_derive_and_gives_the_same_tags(
    token, ring, row, clock
):
    in_memory = signer(ring, row, pb.ALGORITHM_HS256)
    token.part.features = frozenset(Feature)
    inside = signer(Keyring(token, CacheSettings(), clock), row, pb.ALGORITHM_HS256)
    assert inside.sign(MESSAGE) == in_memory.sign(MESSAGE)
    assert inside.kid == in_memory.kid
    assert (in_memory.custody, inside.custody) == (
        pb.CUSTODY_CLASS_ADAPTER_MEMORY,
        pb.CUSTODY_CLASS_HSM_DERIVED,
    )


def test_hs256_inside_the_token_never_asks_for_keying_material(row, token, clock):
    token.part.features = frozenset(Feature)
    token.calls.clear()
    signer(Keyring(token, CacheSettings(), clock), row, pb.ALGORITHM_HS256).sign(MESSAGE)
    assert token.calls == {"hkdf_hmac": 1}


@pytest.mark.parametrize("number", DERIVABLE, **NAMES)
def test_a_new_context_costs_one_token_call_and_a_known_one_none(token, ring, row, number):
    signer(ring, row, number)
    assert token.calls == {"hmac": 1}
    signer(ring, row, number)
    assert token.calls == {"hmac": 1}
    signer(ring, row, number, role="verifier")
    assert token.calls == {"hmac": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"purpose": "webhook"},
        {"epoch": 2},
        {"role": "other"},
        {"transcript": bytes(32)},
        {"tenant": "acm"},
        {"protocol": "x"},
    ],
    ids=str,
)
@pytest.mark.parametrize("number", DERIVABLE, **NAMES)
def test_another_context_is_another_key(ring, row, number, changes):
    one, other = signer(ring, row, number), signer(ring, row, number, **changes)
    assert one.kid != other.kid
    if number == pb.ALGORITHM_HS256:
        assert one.sign(MESSAGE) != other.sign(MESSAGE)
    else:
        assert one.spki != other.spki


def test_purpose_separates_keys_even_under_one_digest(ring, row):
    # The purpose is in the label as well as in the context: a caller who mixes the two up still
    # gets another key.
    digest = context(pb.ALGORITHM_ED25519).digest()
    one, other = (
        ring.signer(row, purpose, pb.ALGORITHM_ED25519, digest) for purpose in ("jwt", "webhook")
    )
    assert one.spki != other.spki


def test_concurrent_first_uses_of_a_context_derive_once(ring, row, token):
    entered, release = Event(), Event()
    honest = token.hmac

    def slow(label, data):
        entered.set()
        assert release.wait(30)
        return honest(label, data)

    token.instead(hmac=slow)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(signer, ring, row, pb.ALGORITHM_ES256)
        assert entered.wait(30)
        rest = [pool.submit(signer, ring, row, pb.ALGORITHM_ES256) for _ in range(7)]
        release.set()
        signers = {id(future.result(30)) for future in [first, *rest]}
    assert len(signers) == 1
    assert token.calls["hmac"] == 1


def test_a_derivation_that_began_before_a_clear_is_not_kept(ring, row, token):
    # A worker derives, the responder revokes the key and clears the ring, the worker's derivation
    # ends. Were it kept, the subkey would outlive its revocation by the cache's age.
    entered, release = Event(), Event()
    honest = token.hmac

    def slow(label, data):
        entered.set()
        assert release.wait(30)
        return honest(label, data)

    token.instead(hmac=slow)
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(signer, ring, row, pb.ALGORITHM_ES256)
        assert entered.wait(30)
        ring.clear()
        release.set()
        begun.result(30)
    assert len(ring) == 0


def test_who_asks_after_a_clear_does_not_wait_for_what_began_before_it(ring, row, token):
    # The derivation under way hangs in the token. It belongs to the time before the clear: nobody
    # later may get its result.
    entered, release = Event(), Event()
    honest = token.hmac

    def first_hangs(label, data):
        if not entered.is_set():
            entered.set()
            assert release.wait(30)
        return honest(label, data)

    token.instead(hmac=first_hangs)
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(signer, ring, row, pb.ALGORITHM_ES256)
        assert entered.wait(30)
        ring.clear()
        later = pool.submit(signer, ring, row, pb.ALGORITHM_ES256)
        try:
            after = later.result(30)
            assert not begun.done()
        finally:
            release.set()
        assert begun.result(30) is not after
    assert signer(ring, row, pb.ALGORITHM_ES256) is after


def test_a_failed_derivation_fails_all_who_wait_and_is_tried_again_afterwards(ring, row, token):
    token.fail("hmac")
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        signer(ring, row, pb.ALGORITHM_ED25519)
    assert signer(ring, row, pb.ALGORITHM_ED25519).spki


def test_a_lost_answer_of_the_token_is_not_a_key(ring, row, token):
    token.fail("hmac", after=True)
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        signer(ring, row, pb.ALGORITHM_ED25519)
    assert len(ring) == 0


@pytest.mark.parametrize(
    "error", [TokenUnavailableError, KeyMissingError, PinRejectedError, TokenError]
)
def test_every_token_error_is_told_as_unavailable_and_never_names_the_label(
    ring, row, token, error
):
    token.fail("hmac", error("capsign/acme/billing/1 went away"))
    with pytest.raises(FailureError) as caught:
        signer(ring, row, pb.ALGORITHM_ED25519)
    assert caught.value.reason == reasons.REASON_TOKEN_UNAVAILABLE
    assert "capsign/" not in caught.value.detail
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("number", [pb.ALGORITHM_ES256, pb.ALGORITHM_ES384], **NAMES)
def test_a_direct_key_whose_token_goes_away_while_signing_is_unavailable(token, ring, number):
    s = signer(ring, provision.make_direct(token, "acme", "ca", 1, number, 0), number)
    token.lose()
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        s.sign(upstream(number))
    token.restore()
    verify(number, s.spki, s.sign(upstream(number)))


@pytest.mark.parametrize(
    "number", [number for number in DIRECT if ALGORITHMS[number].takes_digest], **NAMES
)
def test_a_direct_key_does_not_sign_a_digest_of_another_length(token, ring, number):
    s = signer(ring, provision.make_direct(token, "acme", "ca", 1, number, 0), number)
    token.calls.clear()
    for wrong in (b"", upstream(number)[:-1], upstream(number) + b"x"):
        with pytest.raises(FailureError, match="INPUT_MALFORMED"):
            s.sign(wrong)
    assert not token.calls


def test_hs256_inside_whose_token_goes_away_is_unavailable(token, row, clock):
    token.part.features = frozenset(Feature)
    s = signer(Keyring(token, CacheSettings(), clock), row, pb.ALGORITHM_HS256)
    token.lose()
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        s.sign(MESSAGE)


def test_an_algorithm_that_the_version_was_not_made_for_is_refused(ring, row):
    narrow = replace(row, algorithms=(pb.ALGORITHM_ED25519,))
    for number in (pb.ALGORITHM_ES256, pb.ALGORITHM_RS256, pb.ALGORITHM_UNSPECIFIED, 99):
        with pytest.raises(FailureError, match="ALGORITHM_NOT_ALLOWED"):
            ring.signer(narrow, "jwt", number, bytes(32))


@pytest.mark.parametrize("number", [pb.ALGORITHM_ED25519, pb.ALGORITHM_ES256], **NAMES)
def test_a_root_for_one_algorithm_is_not_taken_for_a_key_pair_nor_the_reverse(token, clock, number):
    # Both rows look the same: one algorithm that can be derived and can be direct. Only the token
    # tells them apart.
    ring = Keyring(token, CacheSettings(), clock)
    root = provision.make_derived(token, "acme", "root", 1, (number,), 0)
    pair = provision.make_direct(token, "acme", "pair", 1, number, 0)
    assert ring.custody(root, number) == pb.CUSTODY_CLASS_ADAPTER_MEMORY
    assert ring.custody(pair, number) == pb.CUSTODY_CLASS_HSM_DIRECT
    assert signer(ring, root, number).spki != token.public_key(pair.label)
    assert signer(ring, pair, number).spki == token.public_key(pair.label)


def test_a_direct_key_that_is_gone_is_not_taken_for_a_root(token, ring):
    row = provision.make_direct(token, "acme", "ca", 1, pb.ALGORITHM_ES384, 0)
    token.destroy(row.label)
    assert ring.custody(row, pb.ALGORITHM_ES384) == pb.CUSTODY_CLASS_HSM_DIRECT
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        ring.signer(row, "jwt", pb.ALGORITHM_ES384, bytes(32))


def test_the_custody_of_a_version_is_told_without_asking_the_token(token, ring):
    pair = provision.make_direct(token, "acme", "pair", 1, pb.ALGORITHM_ES256, 0)
    token.fail("public_key")
    assert ring.custody(pair, pb.ALGORITHM_ES256) == pb.CUSTODY_CLASS_HSM_DIRECT


def test_signers_leave_by_time_and_by_number(ring, row, clock):
    for number in range(20):
        signer(ring, row, pb.ALGORITHM_ED25519, role=f"r{number}")
    assert len(ring) == 8
    clock.now_ms = 1000
    assert ring.sweep() == 8
    assert len(ring) == 0


@pytest.mark.parametrize("leave", ["clear", "sweep"])
def test_a_subkey_that_nobody_uses_is_wiped_when_the_ring_lets_go(ring, row, clock, leave):
    key = key_in(signer(ring, row, pb.ALGORITHM_HS256).sign.__self__)
    assert key != bytes(32)
    clock.now_ms = 1000
    getattr(ring, leave)()
    assert key == bytes(32)


def test_public_keys_say_what_a_verifier_needs(ring, row):
    active = replace(row, state=2, activated_ms=1_700_000_000_123)
    digest = context(pb.ALGORITHM_ES256).digest()
    public = ring.public_key(active, "jwt", pb.ALGORITHM_ES256, digest, attestation=b"{}")
    s = signer(ring, row, pb.ALGORITHM_ES256)
    assert (public.kid, public.spki, public.version, public.state) == (s.kid, s.spki, 1, 2)
    assert (public.context_digest, public.attestation) == (digest, b"{}")
    assert public.activated_at.ToMilliseconds() == 1_700_000_000_123
    hidden = ring.public_key(
        active, "jwt", pb.ALGORITHM_HS256, context(pb.ALGORITHM_HS256).digest()
    )
    assert hidden.spki == b""
    assert hidden.kid


def test_only_a_transcript_bound_asymmetric_subkey_is_attested(token, ring, row):
    bound = {"transcript": hashlib.sha256(b"t").digest()}
    assert ring.attestation(row, pb.ALGORITHM_ES256, context(pb.ALGORITHM_ES256)) == b""
    assert ring.attestation(row, pb.ALGORITHM_HS256, context(pb.ALGORITHM_HS256, **bound)) == b""
    pair = provision.make_direct(token, "acme", "pair", 1, pb.ALGORITHM_ES256, 0)
    assert ring.attestation(pair, pb.ALGORITHM_ES256, context(pb.ALGORITHM_ES256, **bound)) == b""
    envelope = ring.attestation(row, pb.ALGORITHM_ES256, context(pb.ALGORITHM_ES256, **bound))
    stated = verify_attestation(envelope, token.public_key(f"{row.label}/attest"))
    assert stated.spki == signer(ring, row, pb.ALGORITHM_ES256, **bound).spki
    token.calls.clear()
    assert (
        ring.attestation(row, pb.ALGORITHM_ES256, context(pb.ALGORITHM_ES256, **bound)) == envelope
    )
    assert not token.calls


def test_an_attestation_that_the_token_does_not_sign_is_unavailable(token, ring, row):
    bound = context(pb.ALGORITHM_ES256, transcript=bytes(32))
    token.fail("sign")
    with pytest.raises(FailureError, match="TOKEN_UNAVAILABLE"):
        ring.attestation(row, pb.ALGORITHM_ES256, bound)
    assert ring.attestation(row, pb.ALGORITHM_ES256, bound)


@pytest.mark.parametrize("number", DERIVABLE, **NAMES)
def test_nothing_secret_shows_in_a_repr(ring, row, number):
    s = signer(ring, row, number)
    key = s.sign.__self__
    for shown in (repr(s), repr(key), str(key)):
        assert "bytearray" not in shown
        assert "_key" not in shown
