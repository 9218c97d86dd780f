"""Two libraries sign Ed25519: whichever is there, what comes out is the same."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from capsign_adapter.algorithms import derived, sodium
from cryptography.hazmat.primitives.serialization import load_der_public_key
from hypothesis import given, settings
from hypothesis import strategies as st
from support import needs
from support.instances import key_in
from support.vectors import load


@pytest.fixture
def library() -> Any:
    found = sodium.usable(str(needs.libsodium()))
    assert found is not None
    return found


@pytest.fixture(params=["libsodium", "OpenSSL"])
def subkey_of(request: pytest.FixtureRequest, library: Any) -> Callable[[bytearray], Any]:
    if request.param == "libsodium":
        return lambda okm: derived.sodium_ed25519_subkey(okm, library)
    return derived.openssl_ed25519_subkey


def test_libsodium_signs_where_it_is_installed(library):
    subkey: Any = derived.ed25519_subkey(bytearray(32), "")
    assert isinstance(subkey.key, sodium.SodiumKey)
    assert sodium.ed25519_by() == f"libsodium {library.version}"


@pytest.mark.parametrize("case", load("rfc8032"), ids=lambda case: case["case"])
def test_each_signs_as_rfc_8032_says(subkey_of, case):
    subkey = subkey_of(bytearray.fromhex(case["seed"]))
    assert load_der_public_key(subkey.spki).public_bytes_raw().hex() == case["public"]
    assert subkey.sign(bytes.fromhex(case["message"])).hex() == case["signature"]


@settings(max_examples=60, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300))
def test_both_give_the_same_key_the_same_id_and_the_same_signature(seed, message):
    library = sodium.usable(str(needs.libsodium()))
    assert library is not None
    key = sodium.SodiumKey(library, bytearray(seed))
    other: Any = derived.openssl_ed25519_subkey(bytearray(seed))
    assert key.sign(message) == other.sign(message)
    assert key.public() == other.key.public_key().public_bytes_raw()


def test_a_seed_of_another_length_is_refused(subkey_of):
    for length in (0, 31, 33, 64):
        with pytest.raises(ValueError):  # noqa: PT011 - the library's own words
            subkey_of(bytearray(length))


def test_the_key_is_wiped_when_its_last_user_lets_go(library):
    subkey = sodium.SodiumKey(library, bytearray(b"k" * 32))
    key, sign = key_in(subkey), subkey.sign
    signature = sign(b"m")
    del subkey  # the cache dropped it, but a call in flight still holds `sign`
    assert key[:32] == b"k" * 32
    assert sign(b"m") == signature
    del sign
    assert key == bytes(64)


def test_many_threads_sign_with_one_key(library):
    key = sodium.SodiumKey(library, bytearray(b"k" * 32))
    messages = [b"%d" % number for number in range(64)]
    alone = [key.sign(message) for message in messages]
    together = threading.Barrier(8)

    def sign_all(_: int) -> list[bytes]:
        together.wait(30)
        return [key.sign(message) for message in messages]

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(sign_all, range(8))) == [alone] * 8


def parts(library: ctypes.CDLL, **other: Any) -> Any:
    names = (
        "sodium_init",
        "sodium_version_string",
        "crypto_sign_ed25519_seed_keypair",
        "crypto_sign_ed25519_detached",
    )
    return SimpleNamespace(**{name: getattr(library, name) for name in names} | other)


@ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 5)
def zeros(*_: Any) -> int:
    """Says that it signed."""
    return 0


@ctypes.CFUNCTYPE(ctypes.c_int)
def fails() -> int:
    return -1


def test_a_library_that_is_missing_or_signs_wrongly_is_not_used():
    real = ctypes.CDLL(str(needs.libsodium()))
    assert sodium.usable("any", lambda _: parts(real)) is not None
    assert sodium.usable("libsodium.so.0") is None
    assert sodium.usable("any", lambda _: parts(real, crypto_sign_ed25519_detached=zeros)) is None
    assert sodium.usable("any", lambda _: parts(real, sodium_init=fails)) is None
    lacking = parts(real)
    del lacking.crypto_sign_ed25519_seed_keypair
    assert sodium.usable("any", lambda _: lacking) is None
