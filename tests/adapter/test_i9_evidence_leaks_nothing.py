"""I9: no record holds a message, a raw digest or free text; and who has every record, and a
dictionary with the message in it, learns nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from itertools import product

import pytest
from capsign_adapter.keys.commitment import KEY_DOMAIN, CommitmentKey
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire.algorithms import ALGORITHMS, BY_NAME
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import AdapterRig
from support.signed import only

MESSAGE = b"salary of j.doe: 61000"
DICTIONARY = [b"salary of j.doe: %d000" % number for number in range(55, 70)]
HASHES = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_256", "blake2b")
DIGESTS = {
    algorithms.UPSTREAM_MESSAGE: lambda data: data,
    algorithms.UPSTREAM_SHA256: lambda data: hashlib.sha256(data).digest(),
    algorithms.UPSTREAM_SHA384: lambda data: hashlib.sha384(data).digest(),
    algorithms.UPSTREAM_MU: lambda data: hashlib.shake_256(data).digest(64),
}


@pytest.fixture
def rig(tmp_path):
    made = AdapterRig(tmp_path / "store")
    yield made
    made.close()


def input_of(name: str, message: bytes) -> bytes:
    """What comes upstream for a message under the algorithm of this name."""
    return DIGESTS[BY_NAME[name].upstream](message)


def sign_all(rig: AdapterRig, message: bytes) -> list[Signed]:
    """One signature by each algorithm of the rig's grants; their entries."""
    for name in ("Ed25519", "ES256", "HS256", "ML-DSA-65"):
        (item,) = rig.sign(input_of(name, message), algorithm=BY_NAME[name].number)
        assert item.signatures, item
    handle, context = rig.handle("release"), signing_pb2.ContextSuffix()
    number = BY_NAME["ES384"].number
    rig.sign(input_of("ES384", message), handle=handle, algorithm=number, context=context)
    found = [decode(entry) for entry in rig.entries()]
    return [one for one in found if isinstance(one, Signed)]


def forms(data: bytes) -> set[bytes]:
    """How bytes may stand somewhere."""
    text = base64.b64encode(data).rstrip(b"=")
    return {data, data.hex().encode(), data.hex().upper().encode(), text}


def test_no_entry_has_a_message_or_a_digest_of_it(rig):
    sign_all(rig, MESSAGE)
    log = b"".join(rig.entries())
    digests = [hashlib.new(name, MESSAGE).digest() for name in HASHES]
    twice = [hashlib.sha256(each).digest() for each in digests]
    for needle in (MESSAGE, *digests, *twice):
        assert not [form for form in forms(needle) if form in log]


def test_the_database_has_no_signature_that_can_be_verified(rig, tmp_path):
    """With the public key a signature tells which of several messages it is of. A call that is sent
    again gets its bytes all the same.
    """
    intents, inputs = [new_intent_id() for _ in range(2)], [MESSAGE, b"another"]
    first = [only(item) for item in rig.sign(*inputs, intents=intents)]
    again = [only(item) for item in rig.sign(*inputs, intents=intents)]
    assert first == again
    assert all(first)
    files = b"".join(path.read_bytes() for path in (tmp_path / "store").iterdir())
    assert intents[0] in files
    assert not [form for value in first for form in forms(value) if form in files]


def test_a_dictionary_finds_nothing_in_commitments_without_the_pepper(rig):
    """Every key that is at hand for somebody with the log is tried as that of the HMAC."""
    entries = sign_all(rig, MESSAGE)
    commitments = {one.commitment for one in entries}
    public = {b"", bytes(32), b"demo", KEY_DOMAIN, rig.policy.digest}
    public |= {one.group.context_digest for one in entries}
    public |= {one.group.cert_key_hash for one in entries}
    found = set()
    for guess, key, name in product(DICTIONARY, public, ("Ed25519", "ES256", "HS256", "ES384", "")):
        data = input_of(name, guess) if name else hashlib.sha256(guess).digest()
        grants = (
            ("release", "release", "signer") if name == "ES384" else ("orders-jwt", "jwt", "issuer")
        )
        made = CommitmentKey(key).fingerprint(grants[0], name, *grants[1:], "1", b"", data)
        found |= {made, hmac.digest(key, data, "sha256"), hashlib.sha256(key + data).digest()}
    assert not found & commitments


def test_with_the_pepper_the_same_attack_finds_the_message(rig):
    """So the attack above is one that works: what keeps it from working is the pepper."""
    entries = sign_all(rig, MESSAGE)
    key = CommitmentKey(rig.token.hmac("capsign/demo/pepper", KEY_DOMAIN))
    commitments = {one.commitment for one in entries}
    hits = [
        guess
        for guess in DICTIONARY
        if key.fingerprint("orders-jwt", "Ed25519", "jwt", "issuer", "1", b"", guess) in commitments
    ]
    assert hits == [MESSAGE]


def test_a_message_that_is_signed_twice_shows_only_where_the_algorithm_is_deterministic(rig):
    """Commitments of one message are equal, as retries must be told apart from conflicts; the
    hashes of signatures are equal for the algorithms that decision 66 names, and no others. RS256
    is not among these keys; its signatures are deterministic too (RFC 8017, section 8.2).
    """
    sign_all(rig, MESSAGE)
    entries = sign_all(rig, MESSAGE)
    first, second = entries[: len(entries) // 2], entries[len(entries) // 2 :]
    equal = {
        ALGORITHMS[one.group.algorithm].name
        for one, other in zip(first, second, strict=True)
        if one.signature_hash == other.signature_hash
    }
    assert equal == {"Ed25519", "HS256"}
    assert [one.commitment for one in first] == [one.commitment for one in second]
