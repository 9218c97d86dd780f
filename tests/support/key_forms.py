"""The forms under which a derived key can lie in memory, as needles for `memory_scan`.

Whoever finds one of these has the key, or most of it: the keying material itself, turned round
(OpenSSL's big numbers are little-endian), as text, and what the algorithms make of it before they
sign.
"""

from __future__ import annotations

import base64
import hashlib
import struct

from capsign_adapter.algorithms.det_keygen import p256_from_seed
from support.memory_scan import NEEDLE_LEN


def needles(algorithm: str, okm: bytes) -> dict[str, bytes]:
    """Needles by form, of 32 bytes of keying material. A form's name ends in the half that it is
    of.
    """
    found = _binary("okm", okm) | _text("okm", okm)
    match algorithm:
        case "ES256":
            scalar = p256_from_seed(okm).private_numbers().private_value.to_bytes(32, "big")
            found |= _binary("scalar", scalar) | _text("scalar", scalar)
        case "Ed25519":
            # RFC 8032 section 5.1.5: the first half becomes the scalar, the second the prefix of
            # the nonce.
            expanded = hashlib.sha512(okm).digest()
            clamped = bytes([expanded[0] & 0xF8, *expanded[1:31], expanded[31] & 0x7F | 0x40])
            found |= _binary("unclamped scalar", expanded[:32]) | _binary("clamped scalar", clamped)
            found |= _binary("nonce prefix", expanded[32:])
        case "HS256":
            for name, fill in (("inner", 0x36), ("outer", 0x5C)):
                words = _after_one_block(bytes(byte ^ fill for byte in okm.ljust(64, b"\0")))
                found |= _halves(f"{name} midstate, big-endian words", struct.pack(">8I", *words))
                found |= _halves(
                    f"{name} midstate, little-endian words", struct.pack("<8I", *words)
                )
        case "ML-DSA-65":
            # FIPS 204 algorithm 6, line 1: rho is public, rho' gives the secret vectors, K the
            # nonce.
            expanded = hashlib.shake_256(okm + bytes((6, 5))).digest(128)
            found |= _halves("rho prime", expanded[32:96]) | _halves("K", expanded[96:])
    return found


def _binary(name: str, secret: bytes) -> dict[str, bytes]:
    return _halves(f"{name} raw", secret) | _halves(f"{name} reversed", secret[::-1])


def _text(name: str, secret: bytes) -> dict[str, bytes]:
    found = _halves(f"{name} hex", secret.hex().encode()) | _halves(
        f"{name} HEX", secret.hex().upper().encode()
    )
    for shift in range(3):
        # What stands before the secret decides how its bits fall into characters, so there are
        # three spellings.
        first, end = -(-shift * 4 // 3), (shift + len(secret)) * 4 // 3
        standard = base64.b64encode(bytes(shift) + secret)[first:end]
        found |= _halves(f"{name} base64, shift {shift}", standard)
        found |= _halves(
            f"{name} base64url, shift {shift}", standard.translate(bytes.maketrans(b"+/", b"-_"))
        )
    return found


def _halves(name: str, value: bytes) -> dict[str, bytes]:
    return {f"{name}, first": value[:NEEDLE_LEN], f"{name}, last": value[-NEEDLE_LEN:]}


def _after_one_block(block: bytes) -> list[int]:
    """The chaining value of SHA-256 after its first block, FIPS 180-4 section 6.2.2. `hashlib` does
    not show it.
    """
    mask, rotate = 0xFFFFFFFF, lambda word, by: (word >> by | word << 32 - by) & 0xFFFFFFFF
    w = list(struct.unpack(">16I", block))
    for t in range(16, 64):
        s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3
        s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10
        w.append(w[t - 16] + s0 + w[t - 7] + s1 & mask)
    a, b, c, d, e, f, g, h = _INITIAL
    for t in range(64):
        s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)
        t1 = h + s1 + (e & f ^ ~e & mask & g) + _ROUND[t] + w[t] & mask
        s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)
        t2 = s0 + (a & b ^ a & c ^ b & c) & mask
        a, b, c, d, e, f, g, h = t1 + t2 & mask, a, b, c, d + t1 & mask, e, f, g
    return [
        before + after & mask
        for before, after in zip(_INITIAL, (a, b, c, d, e, f, g, h), strict=True)
    ]


def _primes(count: int) -> list[int]:
    found: list[int] = []
    candidate = 2
    while len(found) < count:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _root_fraction(number: int, degree: int) -> int:
    """The first 32 bits of the fractional part of a root, FIPS 180-4 sections 4.2.2 and 5.3.3, in
    whole numbers.
    """
    scaled, low, high = number << 32 * degree, 0, 1 << 40
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**degree <= scaled else (low, middle)
    return low & 0xFFFFFFFF


_INITIAL = [_root_fraction(prime, 2) for prime in _primes(8)]
_ROUND = [_root_fraction(prime, 3) for prime in _primes(64)]
