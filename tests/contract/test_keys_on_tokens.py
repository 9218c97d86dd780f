"""The keys folder on every token: made, listed, derived from, signed with, attested, the same after
a restart.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from capsign_adapter.algorithms.kinds import Feature
from capsign_adapter.custody.erasing import PepperClearing
from capsign_adapter.custody.making import Author
from capsign_adapter.decide.context import Context
from capsign_adapter.enrol.certificates import root_certificate
from capsign_adapter.keys import labels, provision
from capsign_adapter.keys.attestation import verify_attestation
from capsign_adapter.keys.authority_key import AuthorityKey
from capsign_adapter.keys.commitment import CommitmentKeys
from capsign_adapter.keys.keyring import CacheSettings, Keyring
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.keys.result_seal import SealBrokenError
from capsign_adapter.model.erasures import Erasure
from capsign_adapter.token.interface import KeyMissingError, TokenUnavailableError
from capsign_adapter.token.open import open_token
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support import tokens
from support.fake_token import FakeToken
from support.interposed import Interposed

DERIVABLE = tuple(row.number for row in ALGORITHMS.values() if row.derivable)
CONTEXT = Context(
    "acme", "billing", 1, "jwt", "", "jwt", "issuer", "1", hashlib.sha256(b"transcript").digest()
)
MESSAGE = b"a message"


@pytest.fixture(
    scope="module", params=["fake", "softhsm", pytest.param("nss", marks=pytest.mark.nss)]
)
def reopen(request, tmp_path_factory):
    """Opens the same token again and again, as one process after another would; a fake has no
    second life.
    """
    directory = tmp_path_factory.mktemp(request.param)
    fake = FakeToken()
    make: dict[str, Any] = {"fake": lambda _: None, "softhsm": tokens.softhsm, "nss": tokens.nss}
    settings = make[request.param](directory)
    return lambda: fake if settings is None else open_token(settings)


@pytest.fixture(scope="module")
def life(reopen):
    """A token with a whole set of keys: (token, rows)."""
    token = reopen()
    if Feature.ED25519 in token.features:
        provision.make_service_keys(token)
    provision.make_pepper(token, "acme")
    rows = [
        provision.make_derived(token, "acme", "billing", 1, DERIVABLE, 0),
        provision.make_derived(token, "acme", "single", 1, (pb.ALGORITHM_ES256,), 0),
        provision.make_direct(token, "acme", "ca", 1, pb.ALGORITHM_ES256, 0),
    ]
    yield token, rows
    token.close()


class ErasureRows:
    """Of the store: one tenant that was erased, and how often its pepper was shown to be gone."""

    def __init__(self) -> None:
        self.proofs: list[bytes] = []

    def clock_ms(self) -> int:
        return 1

    def erasures(self) -> list[Erasure]:
        return [Erasure("leaver", 7, 1)]

    def prove_erased(self, tenant, leaf, now_ms) -> int:
        self.proofs.append(leaf(7))
        return 0


def test_an_erased_pepper_is_used_by_nobody_any_more(life):
    token, _ = life
    label = labels.pepper("leaver")
    provision.make_pepper(token, "leaver")
    keys = CommitmentKeys(token, lambda: 0)
    kept = keys.for_tenant("leaver").results.seal(b"signature", b"")
    rows = ErasureRows()
    found: list[str] = []
    author = Author("spiffe://capsign.test/adapter/custody", bytes(32))
    clearing = PepperClearing(token, rows, lambda: author, lambda: 1, found.append)
    for _ in range(2):
        clearing.look(rows.erasures())
    assert (len(rows.proofs), found) == (1, [])
    keys.clear()
    assert label not in token.labels()
    with pytest.raises(KeyMissingError):
        token.hmac(label, b"capsign1 commitment")
    with pytest.raises(FailureError):
        keys.for_tenant("leaver")
    # a pepper that is made under that name is another: what was sealed before stays closed
    provision.make_pepper(token, "leaver")
    with pytest.raises(SealBrokenError):
        keys.for_tenant("leaver").results.open(kept, b"")
    token.destroy(label)


def test_one_tenant_whose_pepper_stays_keeps_no_other_from_being_forgotten(life):
    token, _ = life
    tenants = ["first", "stuck", "third"]
    for tenant in tenants:
        provision.make_pepper(token, tenant)
    rows = ErasureRows()
    found: list[str] = []
    author = Author("spiffe://capsign.test/adapter/custody", bytes(32))

    def destroy(label: str) -> None:
        if label == labels.pepper("stuck"):
            raise TokenUnavailableError("the token does not answer")
        token.destroy(label)

    stuck = Interposed(token)
    stuck.instead(destroy=destroy)
    clearing = PepperClearing(stuck, rows, lambda: author, lambda: 1, found.append)
    with pytest.raises(TokenUnavailableError):
        clearing.look([Erasure(tenant, 7, 1) for tenant in tenants])
    left = [tenant for tenant in tenants if labels.pepper(tenant) in token.labels()]
    assert (left, len(rows.proofs)) == (["stuck"], 2)
    clearing = PepperClearing(token, rows, lambda: author, lambda: 1, found.append)
    clearing.look([Erasure(tenant, 7, 1) for tenant in tenants])
    assert labels.pepper("stuck") not in token.labels()
    assert found == []


def signers(token, row, numbers):
    ring = Keyring(token, CacheSettings(), lambda: 0)
    found = {}
    for number in numbers:
        context = replace(CONTEXT, algorithm=ALGORITHMS[number].name)
        found[number] = ring.signer(row, context.purpose, number, context.digest())
    return found


@pytest.mark.parametrize("number", DERIVABLE, ids=lambda number: ALGORITHMS[number].name)
def test_every_derivable_algorithm_signs(life, number):
    token, (row, *_) = life
    s = signers(token, row, [number])[number]
    inside = number == pb.ALGORITHM_HS256 and Feature.HKDF_INSIDE in token.features
    assert s.custody == (
        pb.CUSTODY_CLASS_HSM_DERIVED if inside else pb.CUSTODY_CLASS_ADAPTER_MEMORY
    )
    if number == pb.ALGORITHM_HS256:
        assert s.sign(MESSAGE) == s.sign(MESSAGE) != s.sign(b"another")
        return
    public: Any = load_der_public_key(s.spki)
    if number == pb.ALGORITHM_ED25519:
        public.verify(s.sign(MESSAGE), MESSAGE)
    elif number == pb.ALGORITHM_ES256:
        public.verify(s.sign(hashlib.sha256(MESSAGE).digest()), MESSAGE, ec.ECDSA(hashes.SHA256()))
    else:
        public.verify_mu(s.sign(bytes(64)), bytes(64))


def test_hs256_inside_and_in_memory_are_one_key(life):
    token, (row, *_) = life
    if Feature.HKDF_INSIDE not in token.features:
        pytest.skip("this token does not derive inside")
    inside = signers(token, row, [pb.ALGORITHM_HS256])[pb.ALGORITHM_HS256]

    class Plain:
        features: frozenset[str] = frozenset()
        hmac = staticmethod(token.hmac)

    in_memory = signers(Plain(), row, [pb.ALGORITHM_HS256])[pb.ALGORITHM_HS256]
    assert inside.sign(MESSAGE) == in_memory.sign(MESSAGE)
    assert inside.kid == in_memory.kid


def test_a_root_and_a_key_pair_are_told_apart(life):
    token, (_, single, direct) = life
    ring = Keyring(token, CacheSettings(), lambda: 0)
    assert ring.custody(single, pb.ALGORITHM_ES256) == pb.CUSTODY_CLASS_ADAPTER_MEMORY
    assert ring.custody(direct, pb.ALGORITHM_ES256) == pb.CUSTODY_CLASS_HSM_DIRECT
    s = ring.signer(direct, "jwt", pb.ALGORITHM_ES256, bytes(32))
    public: Any = load_der_public_key(s.spki)
    public.verify(s.sign(hashlib.sha256(MESSAGE).digest()), MESSAGE, ec.ECDSA(hashes.SHA256()))


def test_an_attestation_is_signed_in_the_token(life):
    token, (row, *_) = life
    context = replace(CONTEXT, algorithm="ES256")
    ring = Keyring(token, CacheSettings(), lambda: 0)
    stated = verify_attestation(
        ring.attestation(row, pb.ALGORITHM_ES256, context), token.public_key(f"{row.label}/attest")
    )
    assert stated.context == context
    assert stated.spki == signers(token, row, [pb.ALGORITHM_ES256])[pb.ALGORITHM_ES256].spki


def test_the_inventory_holds(life):
    token, rows = life
    if Feature.ED25519 in token.features:
        provision.assert_inventory(token, rows, ["acme"])
        assert provision.unknown_objects(token, rows, ["acme"]) == []
    else:
        with pytest.raises(provision.InventoryError) as caught:
            provision.assert_inventory(token, rows, ["acme"])
        assert len(caught.value.findings) == 2
    assert provision.next_version("acme", "billing", rows, token.labels()) == 2


def test_an_authority_signs_certificates_in_the_token(life):
    token, _ = life
    provision.make_authority(token, 1)
    key = AuthorityKey(token, labels.authority(1))
    root = x509.load_der_x509_certificate(root_certificate(key, 1, "capsign.test", 0, 1_000_000))
    root.verify_directly_issued_by(root)
    assert root.public_key() == load_der_public_key(token.public_key(labels.authority(1)))
    with pytest.raises(TypeError, match="stays in the token"):
        key.private_numbers()
    token.destroy(labels.authority(1))


def test_a_missing_key_is_found_missing(life):
    token, rows = life
    ghost = replace(rows[0], key="ghost", label="capsign/acme/ghost/1")
    with pytest.raises(provision.InventoryError, match="capsign/acme/ghost/1 is missing"):
        provision.assert_inventory(token, [*rows, ghost], ["acme"])


def test_keys_are_the_same_after_the_token_was_opened_anew(life, reopen):
    # Must run last in this module: it closes what the others use.
    token, (row, *_) = life
    derived = {number: (s.kid, s.spki) for number, s in signers(token, row, DERIVABLE).items()}
    commitment = CommitmentKeys(token, lambda: 0).for_tenant("acme")
    seed = mint_seed(token) if Feature.ED25519 in token.features else None
    if not isinstance(token, FakeToken):
        token.close()
        token = reopen()
    try:
        assert {
            number: (s.kid, s.spki) for number, s in signers(token, row, DERIVABLE).items()
        } == derived
        assert CommitmentKeys(token, lambda: 0).for_tenant("acme") == commitment
        assert seed is None or mint_seed(token) == seed
    finally:
        token.close()
