"""Making keys, and holding the token against the store at start."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest
from capsign_adapter.keys import check_values, labels, provision
from capsign_adapter.keys.mint_key import mint_seed
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_adapter.token.interface import KeyAttributes, TokenUnavailableError
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as pb
from capsign_wire.types.v1 import signing_pb2
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support.fake_token import FakeToken
from support.interposed import Interposed

DERIVABLE = tuple(row.number for row in ALGORITHMS.values() if row.derivable)


@pytest.fixture
def token():
    fake = FakeToken()
    provision.make_service_keys(fake)
    provision.make_pepper(fake, "acme")
    return Interposed(fake)


@pytest.fixture
def rows(token):
    return [
        provision.make_derived(token, "acme", "billing", 1, DERIVABLE, 5),
        provision.make_direct(token, "acme", "ca", 1, pb.ALGORITHM_ES384, 6),
    ]


def findings(token, rows, tenants=("acme",)):
    with pytest.raises(provision.InventoryError) as caught:
        provision.assert_inventory(token, rows, tenants)
    return caught.value.findings


def test_a_derived_version_is_a_root_and_an_attestation_pair(token, rows):
    derived, _ = rows
    assert derived.label == "capsign/acme/billing/1"
    assert (derived.state, derived.created_ms, derived.algorithms) == (
        signing_pb2.KEY_STATE_PRE_ACTIVATION,
        5,
        DERIVABLE,
    )
    assert derived.check_value == token.hmac(derived.label, b"capsign1 check")[:8]
    assert (
        load_der_public_key(token.public_key("capsign/acme/billing/1/attest")).curve.name
        == "secp256r1"
    )


def test_a_direct_version_is_checked_by_its_public_key(token, rows):
    _, direct = rows
    assert direct.check_value == hashlib.sha256(token.public_key("capsign/acme/ca/1")).digest()[:8]
    assert direct.algorithms == (pb.ALGORITHM_ES384,)
    assert "capsign/acme/ca/1/attest" not in token.labels()


def test_a_whole_inventory_passes_and_changes_nothing(token, rows):
    before = token.labels()
    token.calls.clear()
    provision.assert_inventory(token, rows, ["acme"])
    assert token.labels() == before
    assert not {"generate_secret", "generate_key_pair", "destroy"} & set(token.calls)


@pytest.mark.parametrize(
    "label",
    [
        "capsign/log",
        "capsign/mint",
        "capsign/acme/pepper",
        "capsign/acme/billing/1",
        "capsign/acme/billing/1/attest",
        "capsign/acme/ca/1",
    ],
)
def test_a_missing_key_stops_the_start_and_is_not_made_again(token, rows, label):
    token.destroy(label)
    assert any(label in finding and "missing" in finding for finding in findings(token, rows))
    assert label not in token.labels()


def test_another_root_under_the_same_label_is_noticed(token, rows):
    # A token restored from the backup of another environment: every label is there, every attribute
    # is good.
    token.destroy(rows[0].label)
    token.generate_secret(rows[0].label)
    assert findings(token, rows) == (
        "The key capsign/acme/billing/1 is not the one that was made: its check value differs.",
    )


def test_another_key_pair_under_the_same_label_is_noticed(token, rows):
    token.destroy(rows[1].label)
    token.generate_key_pair(rows[1].label, pb.ALGORITHM_ES384)
    assert any("check value differs" in finding for finding in findings(token, rows))


def test_an_imported_root_is_weak_even_with_the_right_bytes(token, rows):
    value = b"r" * 32
    token.destroy(rows[0].label)
    token.import_secret(rows[0].label, value)
    imported = replace(rows[0], check_value=hmac.digest(value, b"capsign1 check", "sha256")[:8])
    (finding,) = findings(token, [imported, rows[1]])
    assert "was extractable once" in finding
    assert "was not generated in the token" in finding


def test_all_findings_are_told_at_once_and_the_error_says_what_to_do(token, rows):
    for label in token.labels():
        token.destroy(label)
    with pytest.raises(provision.InventoryError) as caught:
        provision.assert_inventory(token, rows, ["acme"])
    assert len(caught.value.findings) == 5
    assert "Nothing was changed" in str(caught.value)


def test_a_token_that_does_not_answer_is_not_an_empty_token(token, rows):
    token.lose()
    with pytest.raises(TokenUnavailableError):
        provision.assert_inventory(token, rows, ["acme"])


def test_a_destroyed_version_is_not_missed_but_its_object_is_unknown(token, rows):
    pending = [replace(row, state=signing_pb2.KEY_STATE_DESTROYED) for row in rows]
    destroyed = [replace(row, gone_ms=1) for row in pending]
    assert provision.unknown_objects(token, rows, ["acme"]) == []
    assert provision.unknown_objects(token, pending, ["acme"]) == [], "about to be destroyed"
    assert provision.unknown_objects(token, destroyed, ["acme"]) == [
        "capsign/acme/billing/1",
        "capsign/acme/billing/1/attest",
        "capsign/acme/ca/1",
    ]
    for label in provision.unknown_objects(token, destroyed, ["acme"]):
        token.destroy(label)
    provision.assert_inventory(token, destroyed, ["acme"])


def test_a_key_that_exists_is_left_alone(token, rows):
    check = token.hmac(rows[0].label, b"capsign1 check")
    for make in (
        lambda: provision.make_derived(token, "acme", "billing", 1, DERIVABLE, 0),
        lambda: provision.make_direct(token, "acme", "ca", 1, pb.ALGORITHM_ES384, 0),
        lambda: provision.make_pepper(token, "acme"),
        lambda: provision.make_service_keys(token),
    ):
        with pytest.raises(FailureError, match="ILLEGAL_TRANSITION"):
            make()
    assert token.hmac(rows[0].label, b"capsign1 check") == check


def test_an_interrupted_creation_is_stepped_over(token, rows):
    # The root was made, then the process died: no attestation pair, no row. Its number is not used
    # again.
    token.fail("generate_key_pair")
    with pytest.raises(TokenUnavailableError):
        provision.make_derived(token, "acme", "billing", 2, DERIVABLE, 0)
    assert provision.next_version("acme", "billing", rows, token.labels()) == 3
    assert provision.next_version("acme", "billing", rows, []) == 2
    assert provision.next_version("acme", "new", rows, token.labels()) == 1
    # A tombstone keeps its number, too.
    token.destroy("capsign/acme/billing/2")
    tombstone = replace(rows[0], version=2, state=signing_pb2.KEY_STATE_DESTROYED)
    assert provision.next_version("acme", "billing", [*rows, tombstone], token.labels()) == 3


@pytest.mark.parametrize("flaw", ["sensitive", "always_sensitive", "never_extractable", "local"])
def test_a_token_that_makes_weak_keys_is_not_used(token, flaw):
    good = {
        "sensitive": True,
        "extractable": False,
        "always_sensitive": True,
        "never_extractable": True,
        "local": True,
    }
    token.instead(attributes=lambda label: KeyAttributes(label, **(good | {flaw: False})))
    with pytest.raises(provision.KeyWeakError, match="Do not use it"):
        provision.make_derived(token, "acme", "weak", 1, DERIVABLE, 0)


@pytest.mark.parametrize(
    "numbers", [(), (pb.ALGORITHM_ES384,), (pb.ALGORITHM_ED25519, pb.ALGORITHM_RS256), (0,), (99,)]
)
def test_only_derivable_algorithms_make_a_derived_key(token, numbers):
    before = token.labels()
    with pytest.raises(FailureError, match="ALGORITHM_NOT_ALLOWED"):
        provision.make_derived(token, "acme", "other", 1, numbers, 0)
    assert token.labels() == before


@pytest.mark.parametrize("number", [pb.ALGORITHM_HS256, pb.ALGORITHM_ML_DSA_65, 0, 99])
def test_only_in_token_algorithms_make_a_direct_key(token, number):
    with pytest.raises(FailureError, match="ALGORITHM_NOT_ALLOWED"):
        provision.make_direct(token, "acme", "other", 1, number, 0)


@pytest.mark.parametrize("number", [pb.ALGORITHM_ED25519, pb.ALGORITHM_PS256])
def test_a_token_that_lacks_an_algorithm_is_told_so_before_anything_is_made(number):
    token = FakeToken(features=frozenset())
    with pytest.raises(FailureError, match="nothing was made"):
        provision.make_direct(token, "acme", "ca", 1, number, 0)
    with pytest.raises(FailureError, match="nothing was made"):
        provision.make_service_keys(token)
    assert token.labels() == []


def test_names_in_labels_cannot_reach_into_each_other():
    for bad in ("", "a/b", "/"):
        with pytest.raises(ValueError, match="slash"):
            labels.key_version(bad, "k", 1)
        with pytest.raises(ValueError, match="slash"):
            labels.key_version("t", bad, 1)
        with pytest.raises(ValueError, match="slash"):
            labels.pepper(bad)
    with pytest.raises(ValueError, match="from 1"):
        labels.key_version("t", "k", 0)


def test_the_mint_key_is_the_same_in_every_replica_and_no_other_key(token):
    seed = mint_seed(token)
    assert seed == mint_seed(token)
    assert len(seed) == 32
    info = b"\x00\x20\x0dcapsign1 mint\x00"
    assert seed == token.hmac("capsign/mint", info + b"\x01")
    assert ed25519.Ed25519PrivateKey.from_private_bytes(seed)


def authority_row(token, version=1, state=AuthorityState.ACTIVE):
    provision.make_authority(token, version)
    check = check_values.check_value(token.public_key(labels.authority(version)))
    return AuthorityRow(version, state, b"DER", labels.authority(version), check, 1, 2)


def test_an_authority_is_accounted_for(token, rows):
    ours = [authority_row(token), authority_row(token, 2, AuthorityState.RETIRED)]
    provision.assert_inventory(token, rows, ["acme"], ours)
    assert provision.unknown_objects(token, rows, ["acme"], ours) == []
    assert provision.unknown_objects(token, rows, ["acme"]) == [
        "capsign/authority/1",
        "capsign/authority/2",
    ]


class StoredLater:
    """A store that gets a row while the caller pauses."""

    def __init__(self, rows, authorities) -> None:
        self._rows, self._authorities = rows, authorities
        self.paused = 0

    def pause(self):
        self.paused += 1

    def key_versions(self):
        return self._rows if self.paused else self._rows[:-1]

    def authorities(self):
        return self._authorities if self.paused else []

    def key_claims(self):
        return []

    def erasures(self):
        return []


def test_a_key_that_is_being_made_right_now_is_no_incident(token, rows):
    """A replica that started between a successor's key and its row counted a violation of I8, and
    somebody was woken.
    """
    store = StoredLater(rows, [authority_row(token)])
    assert provision.unaccounted(token, store, ["acme"], store.pause) == []
    assert store.paused == 1
    assert provision.unaccounted(token, store, ["acme"], store.pause) == []
    assert store.paused == 1, "where all is known nobody waits"


def test_a_key_that_nothing_accounts_for_a_moment_later_either_is_one(token, rows):
    store = StoredLater(rows, [])
    provision.make_authority(token, 7)
    assert provision.unaccounted(token, store, ["acme"], store.pause) == ["capsign/authority/7"]


def test_the_key_of_a_retired_authority_is_not_missed(token, rows):
    ours = [authority_row(token), authority_row(token, 2, AuthorityState.RETIRED)]
    token.destroy(ours[1].label)
    provision.assert_inventory(token, rows, ["acme"], ours)
    token.destroy(ours[0].label)
    with pytest.raises(provision.InventoryError, match="capsign/authority/1 is missing"):
        provision.assert_inventory(token, rows, ["acme"], ours)


def test_another_authority_under_the_same_label_is_noticed(token, rows):
    ours = authority_row(token)
    token.destroy(ours.label)
    token.generate_key_pair(ours.label, pb.ALGORITHM_ES256)
    with pytest.raises(provision.InventoryError, match="check value differs"):
        provision.assert_inventory(token, rows, ["acme"], [ours])


def test_a_tenant_named_authority_is_not_taken_for_one(token):
    provision.make_pepper(token, "authority")
    provision.make_derived(token, "authority", "7", 3, DERIVABLE, 0)
    assert labels.highest_authority(token.labels()) == 0
    provision.make_authority(token, 12)
    assert labels.highest_authority(token.labels()) == 12
    assert labels.highest_version("authority", "12", token.labels()) == 0
