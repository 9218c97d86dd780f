"""Sealed results: the published vectors of XAES-256-GCM, and that nothing else opens."""

from __future__ import annotations

import os

import pytest
from capsign_adapter.keys.commitment import CommitmentKey
from capsign_adapter.keys.result_seal import ResultSeal, SealBrokenError

NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
VECTORS = [
    (b"\x01", b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
    (
        b"\x03",
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    ),
]
"""Key byte, additional data and ciphertext of c2sp.org/XAES-256-GCM, for the two ways of the
subkey.
"""


@pytest.mark.parametrize(("byte", "place", "sealed"), VECTORS)
def test_the_published_vectors_open(byte, place, sealed):
    seal = ResultSeal(byte * 32)
    assert seal.open(NONCE + bytes.fromhex(sealed), place) == b"XAES-256-GCM"


def test_what_one_seal_wrote_another_of_the_same_key_opens():
    key = os.urandom(32)
    first, second = ResultSeal(key), ResultSeal(key)
    sealed = first.seal(b"signature", b"place")
    assert len(sealed) == len(b"signature") + 40
    assert first.open(sealed, b"place") == second.open(sealed, b"place") == b"signature"
    assert first.seal(b"signature", b"place") != sealed


def test_many_are_sealed_each_for_its_place_and_under_a_nonce_of_its_own():
    seal, places = ResultSeal(os.urandom(32)), [b"one", b"two", b"three"]
    sealed = seal.seal_each([b"same"] * 3, places)
    assert [seal.open(*each) for each in zip(sealed, places, strict=True)] == [b"same"] * 3
    assert len({each[:24] for each in sealed}) == 3


def test_another_place_key_or_byte_does_not_open():
    key = os.urandom(32)
    sealed = ResultSeal(key).seal(b"signature", b"place")
    changed = [
        sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :] for at in range(len(sealed))
    ]
    for seal, data, place in [
        (ResultSeal(key), sealed, b"elsewhere"),
        (ResultSeal(os.urandom(32)), sealed, b"place"),
        (ResultSeal(key), sealed[:20], b"place"),
        *((ResultSeal(key), each, b"place") for each in changed),
    ]:
        with pytest.raises(SealBrokenError):
            seal.open(data, place)


def test_the_key_comes_from_the_commitment_key_and_is_not_it():
    one, other = CommitmentKey(b"c" * 32), CommitmentKey(b"d" * 32)
    sealed = one.results.seal(b"signature", b"")
    assert one.results.open(sealed, b"") == b"signature"
    for seal in (other.results, ResultSeal(b"c" * 32)):
        with pytest.raises(SealBrokenError):
            seal.open(sealed, b"")
