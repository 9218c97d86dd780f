"""The contract of `Token`, held by the fake, by SoftHSM and by NSS softokn alike."""

from __future__ import annotations

import hmac
import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from capsign_adapter.algorithms.kinds import Feature
from capsign_adapter.decide.drift_token import Accounted, mechanisms_of, of_token
from capsign_adapter.token.interface import KeyExistsError, KeyMissingError
from capsign_adapter.token.open import open_token
from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key
from support import tokens
from support.fake_token import FakeToken

OPENERS = {
    "fake": lambda directory: FakeToken(),
    "softhsm": lambda directory: open_token(tokens.softhsm(directory)),
    "nss": lambda directory: open_token(tokens.nss(directory)),
}

ASYMMETRIC = [
    pb.ALGORITHM_ED25519,
    pb.ALGORITHM_ES256,
    pb.ALGORITHM_ES384,
    pb.ALGORITHM_PS256,
    pb.ALGORITHM_RS256,
]

# RFC 5869, appendix A: PRK, info, OKM.
RFC_5869 = {
    "A.1": (
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    "A.2": (
        "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
        bytes(range(0xB0, 0x100)).hex(),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    "A.3": (
        "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
        "",
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.nss if name == "nss" else ()) for name in OPENERS],
)
def token(request, tmp_path_factory):
    opened = OPENERS[request.param](tmp_path_factory.mktemp(request.param))
    yield opened
    opened.close()


@pytest.fixture
def label():
    """A label that no other test has used, shaped like ours."""
    return f"capsign/tenant-a/{secrets.token_hex(4)}/1"


@pytest.fixture(params=ASYMMETRIC, ids=lambda number: ALGORITHMS[number].name)
def algorithm(request, token):
    """Each algorithm that this token has; Ed25519 is refused with its reason where it is absent."""
    if request.param == pb.ALGORITHM_ED25519 and Feature.ED25519 not in token.features:
        with pytest.raises(ValueError, match="no Ed25519 keys"):
            token.generate_key_pair("capsign/ed25519-absent", request.param)
        assert "capsign/ed25519-absent" not in token.labels()
        return pb.ALGORITHM_ES256
    return request.param


def input_for(algorithm):
    return secrets.token_bytes(
        {pb.ALGORITHM_ES384: 48, pb.ALGORITHM_ED25519: 1000}.get(algorithm, 32)
    )


def verify(spki, algorithm, data, signature):
    """Raises InvalidSignature unless OpenSSL agrees."""
    public = load_der_public_key(spki)
    sha256 = utils.Prehashed(hashes.SHA256())
    if algorithm == pb.ALGORITHM_ED25519:
        assert isinstance(public, ed25519.Ed25519PublicKey)
        public.verify(signature, data)
    elif algorithm in (pb.ALGORITHM_ES256, pb.ALGORITHM_ES384):
        wide = algorithm == pb.ALGORITHM_ES384
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP384R1 if wide else ec.SECP256R1)
        public.verify(
            signature, data, ec.ECDSA(utils.Prehashed(hashes.SHA384() if wide else hashes.SHA256()))
        )
    else:
        assert isinstance(public, rsa.RSAPublicKey)
        assert public.key_size == 3072
        assert public.public_numbers().e == 65537
        salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        public.verify(
            signature,
            data,
            salted if algorithm == pb.ALGORITHM_PS256 else padding.PKCS1v15(),
            sha256,
        )


@pytest.mark.parametrize("vector", RFC_5869)
def test_hmac_expands_as_rfc_5869_says(token, label, vector):
    prk, info, okm = (bytes.fromhex(part) for part in RFC_5869[vector])
    tokens.import_secret(token, label, prk)
    blocks, block = b"", b""
    for number in range(1, 4):
        block = token.hmac(label, block + info + bytes([number]))
        blocks += block
    assert blocks[: len(okm)] == okm


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 4096, 65536])
def test_hmac_of_any_length(token, length):
    label, key, data = (
        f"capsign/lengths/{length}",
        secrets.token_bytes(32),
        secrets.token_bytes(length),
    )
    tokens.import_secret(token, label, key)
    assert token.hmac(label, data) == hmac.digest(key, data, "sha256")


def test_hkdf_hmac_equals_expand_then_hmac_or_says_that_it_cannot(token, label):
    prk = secrets.token_bytes(32)
    tokens.import_secret(token, label, prk)
    if Feature.HKDF_INSIDE not in token.features:
        with pytest.raises(ValueError, match="does not derive inside"):
            token.hkdf_hmac(label, b"info", b"data")
        return
    for number in range(300):  # more than are kept: evicted ones are derived again
        info = b"info %d" % (number % 280)
        subkey = hmac.digest(prk, info + b"\x01", "sha256")
        assert token.hkdf_hmac(label, info, b"data") == hmac.digest(subkey, b"data", "sha256")
    long = secrets.token_bytes(600)
    assert token.hkdf_hmac(label, long, b"") == hmac.digest(
        hmac.digest(prk, long + b"\x01", "sha256"), b"", "sha256"
    )


def test_hkdf_hmac_uses_a_generated_root_and_ends_with_it(token, label):
    if Feature.HKDF_INSIDE not in token.features:
        return
    token.generate_secret(label)
    first = token.hkdf_hmac(label, b"info", b"data")
    assert first == token.hkdf_hmac(label, b"info", b"data")
    assert first == hmac.digest(token.hmac(label, b"info\x01"), b"data", "sha256")
    token.destroy(label)
    with pytest.raises(KeyMissingError):
        token.hkdf_hmac(label, b"info", b"data")
    assert not [
        name for name in token.labels() if not name
    ]  # derived keys are session objects: none was stored


def test_generated_secret_is_strong_and_its_own(token, label):
    token.generate_secret(label)
    assert token.attributes(label).weaknesses() == []
    token.generate_secret(label + "x")
    assert token.hmac(label, b"data") != token.hmac(label + "x", b"data")


def test_generated_key_pair_signs_and_openssl_verifies(token, label, algorithm):
    token.generate_key_pair(label, algorithm)
    assert token.attributes(label).weaknesses() == []
    spki, data = token.public_key(label), input_for(algorithm)
    for _ in range(8):  # R and S with leading zeros come by chance
        signature = token.sign(label, algorithm, data)
        verify(spki, algorithm, data, signature)
        assert len(signature) <= ALGORITHMS[algorithm].max_signature
    with pytest.raises(InvalidSignature):
        verify(spki, algorithm, input_for(algorithm), signature)


def test_ed25519_signs_the_empty_message(token, label):
    if Feature.ED25519 in token.features:
        token.generate_key_pair(label, pb.ALGORITHM_ED25519)
        signature = token.sign(label, pb.ALGORITHM_ED25519, b"")
        verify(token.public_key(label), pb.ALGORITHM_ED25519, b"", signature)


def test_imported_secret_shows_that_it_was_outside(token, label):
    tokens.import_secret(token, label, secrets.token_bytes(32))
    shown = token.attributes(label)
    assert not shown.never_extractable
    assert "was extractable once" in shown.weaknesses()
    assert "was not generated in the token" in shown.weaknesses()


def test_a_label_is_taken_once(token, label):
    token.generate_secret(label)
    before = token.hmac(label, b"data")
    with pytest.raises(KeyExistsError, match="already"):
        token.generate_secret(label)
    with pytest.raises(KeyExistsError):
        token.generate_key_pair(label, pb.ALGORITHM_ES256)
    assert token.hmac(label, b"data") == before
    assert token.labels().count(label) == 1


def test_a_key_pairs_label_is_taken_once(token, label):
    token.generate_key_pair(label, pb.ALGORITHM_ES256)
    before = token.public_key(label)
    with pytest.raises(KeyExistsError):
        token.generate_key_pair(label, pb.ALGORITHM_ES256)
    with pytest.raises(KeyExistsError):
        token.generate_secret(label)
    assert token.public_key(label) == before


def test_missing_key_is_missing_everywhere(token, label):
    asks = [
        lambda: token.hmac(label, b"data"),
        lambda: token.sign(label, pb.ALGORITHM_ES256, bytes(32)),
        lambda: token.public_key(label),
        lambda: token.attributes(label),
        lambda: token.destroy(label),
    ]
    for ask in asks:
        with pytest.raises(KeyMissingError, match=label):
            ask()
    token.generate_secret(label)  # and asking has left nothing in the way
    assert len(token.hmac(label, b"")) == 32


def test_a_key_of_another_kind_is_no_answer(token, label):
    token.generate_secret(label)
    with pytest.raises(KeyMissingError):
        token.sign(label, pb.ALGORITHM_ES256, bytes(32))
    with pytest.raises(KeyMissingError):
        token.public_key(label)
    token.generate_key_pair(label + "x", pb.ALGORITHM_ES256)
    with pytest.raises(KeyMissingError):
        token.hmac(label + "x", b"data")
    with pytest.raises(KeyMissingError):
        token.sign(label + "x", pb.ALGORITHM_ES384, bytes(48))
    with pytest.raises(KeyMissingError):
        token.sign(label + "x", pb.ALGORITHM_PS256, bytes(32))


@pytest.mark.parametrize(
    "number", [pb.ALGORITHM_ES256, pb.ALGORITHM_ES384, pb.ALGORITHM_PS256, pb.ALGORITHM_RS256]
)
@pytest.mark.parametrize("off_by", [-1, 1, -20])
def test_a_digest_of_the_wrong_length_is_never_signed(token, label, number, off_by):
    right = 48 if number == pb.ALGORITHM_ES384 else 32
    with pytest.raises(ValueError, match=f"digest of {right} bytes"):
        token.sign(label, number, bytes(right + off_by))


@pytest.mark.parametrize(
    "number", [pb.ALGORITHM_UNSPECIFIED, pb.ALGORITHM_HS256, pb.ALGORITHM_ML_DSA_65, 999]
)
def test_algorithms_without_an_in_token_key_are_refused(token, label, number):
    with pytest.raises(ValueError, match="does not sign in a token"):
        token.generate_key_pair(label, number)
    with pytest.raises(ValueError, match="does not sign in a token"):
        token.sign(label, number, bytes(32))


def test_destroyed_is_gone_with_both_halves(token, label):
    token.generate_key_pair(label, pb.ALGORITHM_ES256)
    first = token.public_key(label)
    token.destroy(label)
    for ask in (
        token.public_key,
        token.attributes,
        token.destroy,
        lambda name: token.sign(name, pb.ALGORITHM_ES256, bytes(32)),
    ):
        with pytest.raises(KeyMissingError):
            ask(label)
    assert label not in token.labels()
    token.generate_key_pair(label, pb.ALGORITHM_ES256)
    assert token.public_key(label) != first


def test_labels_are_sorted_and_name_private_and_secret_keys_once(token, label):
    token.generate_key_pair(label + "b", pb.ALGORITHM_ES256)
    token.generate_secret(label + "a")
    listed = token.labels()
    assert listed == sorted(listed)
    assert [name for name in listed if name.startswith(label)] == [label + "a", label + "b"]


def test_labels_lists_more_than_one_batch_of_a_search(token, label):
    for number in range(25):
        token.generate_secret(f"{label}/{number:02}")
    assert [name for name in token.labels() if name.startswith(label)] == [
        f"{label}/{number:02}" for number in range(25)
    ]


def test_sixteen_threads_share_it(token, label):
    token.generate_key_pair(label, pb.ALGORITHM_ES256)
    key = secrets.token_bytes(32)
    tokens.import_secret(token, label + "s", key)
    spki = token.public_key(label)

    def work(number):
        for turn in range(25):
            data = b"%d %d" % (number, turn)
            assert token.hmac(label + "s", data) == hmac.digest(key, data, "sha256")
            digest = hmac.digest(key, data, "sha256")
            verify(spki, pb.ALGORITHM_ES256, digest, token.sign(label, pb.ALGORITHM_ES256, digest))
        return number

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(work, range(16))) == list(range(16))


def test_name_is_for_people_and_holds_no_pin(token):
    assert token.name
    assert "pin" not in repr(token).lower()


def test_what_it_holds_is_as_it_was_made(token, label):
    """Secret and pair, with every attribute that the token tells; nothing differs from how ours are
    made.
    """
    token.generate_secret(label)
    token.generate_key_pair(f"{label}/attest", pb.ALGORITHM_ES256)
    contents = token.contents()
    kinds = {(one.kind, one.label) for one in contents.objects if one.label.startswith(label)}
    assert kinds == {
        ("secret-key", label),
        ("private-key", f"{label}/attest"),
        ("public-key", f"{label}/attest"),
    }
    for one in contents.objects:
        assert len(one.attributes) >= 3, one
    labels = frozenset(one.label for one in contents.objects)
    mine = [
        one for one in of_token(contents, Accounted(labels, labels, ())) if label in one.subject
    ]
    assert mine == []


def test_what_it_offers_covers_what_it_can_make(token):
    needed = mechanisms_of(())
    if Feature.ED25519 not in token.features:
        needed -= {"EDDSA", "EC_EDWARDS_KEY_PAIR_GEN"}
    assert needed | {"ECDSA", "EC_KEY_PAIR_GEN"} <= token.contents().mechanisms


def test_what_was_imported_shows_where_it_came_from(token, label):
    tokens.import_secret(token, label, bytes(32))
    contents = token.contents()
    labels = frozenset(one.label for one in contents.objects)
    found = of_token(contents, Accounted(labels, labels, ()))
    aspects = {one.aspect for one in found if one.subject == label}
    assert {"always-sensitive", "never-extractable"} <= aspects


def test_what_is_destroyed_is_in_it_no_more(token, label):
    token.generate_key_pair(label, pb.ALGORITHM_ES256)
    token.destroy(label)
    assert label not in {one.label for one in token.contents().objects}
