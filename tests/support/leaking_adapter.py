"""The adapter, except that each answer carries the keying material of its subkey, where an
attestation belongs.

What it gives away passes the agent's memory and the socket: both searches of I1 must see it.
Everything else is the real program.
"""

from __future__ import annotations

from typing import Any

from capsign_adapter import __main__
from capsign_adapter.keys import keyring
from capsign_adapter.sign.admit import Admission


def install() -> None:
    """Remember the keying material of every subkey that is made, and add it to every answer by
    context.
    """
    known: dict[bytes, bytes] = {}
    from_okm, signable = keyring.from_okm, Admission.signable

    def remembering(algorithm: Any, okm: bytearray, context_digest: bytes, version: int) -> Any:
        known[context_digest] = bytes(okm)
        return from_okm(algorithm, okm, context_digest, version)

    def telling(admission: Admission, *arguments: Any) -> Any:
        made = signable(admission, *arguments)
        for key in made.keys:
            key.signed_by.attestation = known[key.signer.context_digest]
        return made

    keyring.from_okm = remembering
    Admission.signable = telling


if __name__ == "__main__":
    install()
    __main__.main()
