from __future__ import annotations

import hashlib

import pytest
from capsign_agent.sign import hashing
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as alg
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa


def test_mu_is_what_an_independent_verifier_expects() -> None:
    key = mldsa.MLDSA65PrivateKey.generate()
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = key.sign_mu(hashing.mu_hasher(spki)(b"message"))
    key.public_key().verify(signature, b"message")


@pytest.mark.parametrize(
    "spki", [b"", bytes(1974), bytes.fromhex("308207b2300b0609608648016503040312038207a100")]
)
def test_what_is_no_ml_dsa_key_makes_no_mu(spki: bytes) -> None:
    with pytest.raises(ValueError, match="ML-DSA-65"):
        hashing.mu_hasher(spki)


@pytest.mark.parametrize("number", list(ALGORITHMS))
def test_every_algorithm_sends_what_its_row_says(number: int) -> None:
    row, message = ALGORITHMS[number], b"message"
    expected = {
        alg.UPSTREAM_MESSAGE: message,
        alg.UPSTREAM_SHA256: hashlib.sha256(message).digest(),
        alg.UPSTREAM_SHA384: hashlib.sha384(message).digest(),
        alg.UPSTREAM_MU: None,
    }[row.upstream]
    hasher = hashing.hasher(row)
    assert (hasher(message) if hasher else None) == expected


@pytest.mark.parametrize("number", list(ALGORITHMS))
@pytest.mark.parametrize("size", [0, 31, 32, 48, 64])
def test_a_digest_has_the_length_of_its_algorithm_or_is_refused(number: int, size: int) -> None:
    row = ALGORITHMS[number]
    if row.takes_digest and size == row.max_input:
        hashing.check_digest(row, bytes(size))
    else:
        with pytest.raises(FailureError, match="INPUT_MALFORMED"):
            hashing.check_digest(row, bytes(size))
