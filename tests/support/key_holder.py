"""A process that holds one key in one form, and nothing else of it: what a memory scan must be able
to see.

    python -m support.key_holder KIND < key

Reads 32 bytes, keeps them as KIND says, wipes what it read, prints "holding" and waits for the end
of its input.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import sys
from collections.abc import Callable
from typing import Any

from capsign_adapter.keys.subkeys import from_okm
from capsign_wire.algorithms import BY_NAME


def _subkey(name: str) -> Callable[[bytearray], Any]:
    def hold(okm: bytearray) -> Any:
        subkey = from_okm(BY_NAME[name].number, okm, bytes(32), 1)
        subkey.sign(
            bytes(
                BY_NAME[name].max_input if BY_NAME[name].takes_digest or name == "ML-DSA-65" else 32
            )
        )
        return subkey

    return hold


HELD: dict[str, Callable[[bytearray], Any]] = {
    "Ed25519 subkey": _subkey("Ed25519"),
    "ES256 subkey": _subkey("ES256"),
    "HS256 subkey": _subkey("HS256"),
    "ML-DSA-65 subkey": _subkey("ML-DSA-65"),
    "hmac object": lambda okm: hmac.new(okm, digestmod="sha256"),
    "bytes": bytes,
    "reversed bytes": lambda okm: bytes(reversed(okm)),
    "first half": lambda okm: bytes(memoryview(okm)[:16]),
    "last half": lambda okm: bytes(memoryview(okm)[16:]),
    "hex": lambda okm: okm.hex(),
    "HEX": lambda okm: okm.hex().upper(),
    "base64 after nothing": base64.b64encode,
    "base64 after one byte": lambda okm: base64.b64encode(b"k" + okm),
    "base64url after two bytes": lambda okm: base64.urlsafe_b64encode(b"k=" + okm),
    "expanded Ed25519": lambda okm: hashlib.sha512(okm).digest(),
    "nothing": lambda okm: None,
}


def main() -> None:
    okm = bytearray(32)
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as raw:
        assert raw.readinto(okm) == len(okm)
        held = HELD[sys.argv[1]](okm)
        okm[:] = bytes(len(okm))
        print("holding", flush=True)
        raw.read(1)
    del held


if __name__ == "__main__":
    main()
