"""capsign: sign through the sidecar of this pod, without holding a key.

    import capsign
    signer = capsign.Signer()
    signature = signer.sign(b"header.payload", purpose="jwt", algorithm="ES256")

`Signer` is for threads, `AsyncSigner` for asyncio. Importing this package loads neither gRPC nor protobuf; the first use of one
of the two does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from capsign.errors import CapsignError, HandleNotChosen, InvalidSignature, Refused, Unavailable, Unknown
from capsign.results import Done, KeyHandle, Never, ProtocolRule, PublicKey, Resolution, Signature, WasRefused

if TYPE_CHECKING:
    from capsign.asynchronous import AsyncSigner
    from capsign.signer import Signer

__all__ = [
    "AsyncSigner",
    "CapsignError",
    "Done",
    "HandleNotChosen",
    "InvalidSignature",
    "KeyHandle",
    "Never",
    "ProtocolRule",
    "PublicKey",
    "Refused",
    "Resolution",
    "Signature",
    "Signer",
    "Unavailable",
    "Unknown",
    "WasRefused",
]


def __getattr__(name: str) -> Any:
    if name == "Signer":
        from capsign.signer import Signer

        return Signer
    if name == "AsyncSigner":
        from capsign.asynchronous import AsyncSigner

        return AsyncSigner
    raise AttributeError(f"module 'capsign' has no attribute {name!r}")
