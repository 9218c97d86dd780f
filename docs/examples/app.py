"""An application that signs through its sidecar. It holds no key: what it has is the path of a
socket, in CAPSIGN_SOCKET.

Verifying needs capsign no more: public keys and `cryptography` are enough.
"""

from __future__ import annotations

import hashlib

import capsign
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

MESSAGE = b'{"order": 4711, "amount": "19.90 EUR"}'
CONTEXTS = {
    "a JWT": {"protocol": "jwt"},  # role and version are pinned by the grant
    "an order, as seller": {"protocol": "order-v2", "role": "seller"},
}


def verify_alone(spki: bytes, algorithm: str, signature: bytes, message: bytes) -> None:
    """Raise InvalidSignature unless this public key made the signature."""
    key = load_der_public_key(spki)
    if algorithm == "ES256":
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    else:  # Ed25519 and ML-DSA-65 sign the message itself
        key.verify(signature, message)


def sign_and_verify(signer: capsign.Signer) -> None:
    """Four algorithms in two contexts: eight subkeys, none of them here."""
    seen: dict[bytes, str] = {}
    for title, context in CONTEXTS.items():
        print(f"\n  {title}")
        for algorithm in ("Ed25519", "ES256", "HS256", "ML-DSA-65"):
            made = signer.sign(MESSAGE, purpose="jwt", algorithm=algorithm, **context)
            (public,) = signer.public_keys(purpose="jwt", algorithm=algorithm, **context)
            if public.spki:
                verify_alone(public.spki, algorithm, made.value, MESSAGE)
                how = "verified with cryptography alone"
                try:
                    verify_alone(public.spki, algorithm, made.value, MESSAGE + b" ")
                    raise SystemExit("a changed message verified")
                except InvalidSignature:
                    pass
            else:  # an HMAC has no public half: the adapter checks it
                signer.verify(MESSAGE, made, purpose="jwt", **context)
                how = "verified through the agent"
            if seen.setdefault(public.spki or public.kid.encode(), title) != title:
                raise SystemExit("two contexts share a subkey")
            print(
                f"    {algorithm:<10} {len(made.value):>5} bytes  leaf "
                f"{made.leaf_index:<5} {made.custody:<15} {how}"
            )


def say_it_again(signer: capsign.Signer) -> None:
    """A retry is the same intent, and gives the same bytes: nothing is signed twice."""
    first = signer.sign(MESSAGE, purpose="jwt", algorithm="ES256", protocol="jwt")
    again = signer.sign(
        MESSAGE, purpose="jwt", algorithm="ES256", protocol="jwt", intent_id=first.intent_id
    )
    if (again.value, again.leaf_index) != (first.value, first.leaf_index):
        raise SystemExit("an intent gave two signatures")
    digest = hashlib.sha256(again.value).hexdigest()[:16]
    print(f"\n  the same intent twice: the same bytes ({digest}…), one leaf ({again.leaf_index})")


def try_what_is_not_allowed(signer: capsign.Signer) -> None:
    """What the handle does not name is refused, and the refusal says why and what to do."""
    jwt = next(handle for handle in signer.handles() if handle.purpose == "jwt")
    attempts = {
        "another purpose": {"purpose": "artifact", "algorithm": "ES256", "protocol": "jwt"},
        "another context": {"purpose": "jwt", "algorithm": "ES256", "protocol": "tls"},
        "another algorithm": {"purpose": "jwt", "algorithm": "PS256", "protocol": "jwt"},
    }
    print()
    for title, call in attempts.items():
        try:
            signer.sign(MESSAGE, handle=jwt.id, **call)
        except capsign.Refused as refused:
            print(f"  {title:<18} refused: {refused.reason}\n  {'':<18} {refused.advice}")
        else:
            raise SystemExit(f"{title} was signed")


if __name__ == "__main__":
    with capsign.Signer() as signer:
        sign_and_verify(signer)
        say_it_again(signer)
        try_what_is_not_allowed(signer)
