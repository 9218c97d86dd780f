"""capsign: sign through the sidecar of this pod, without holding a key.

    import capsign
    signer = capsign.Signer()
    signature = signer.sign(b"header.payload", purpose="jwt", algorithm="ES256")

`Signer` is for threads, `AsyncSigner` for asyncio. Importing this package loads neither gRPC nor
protobuf; the first use of one of the two does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from capsign.agent_status import AgentStatus
from capsign.errors import (
    CapsignError,
    HandleNotChosen,
    InvalidSignature,
    Refused,
    Unavailable,
    Unknown,
)
from capsign.receipts import Receipt
from capsign.results import (
    Done,
    KeyHandle,
    KeySet,
    Never,
    ProtocolRule,
    PublicKey,
    Resolution,
    Signature,
    SignedBy,
    WasRefused,
)

if TYPE_CHECKING:
    from capsign_wire.intents import new_intent_id

    from capsign.async_signer import AsyncSigner
    from capsign.async_verifier import AsyncVerifier
    from capsign.inputs import Buffer, IntentId
    from capsign.signer import Signer
    from capsign.verifier import Verifier

__all__ = [
    "AgentStatus",
    "AsyncSigner",
    "AsyncVerifier",
    "Buffer",
    "CapsignError",
    "Done",
    "HandleNotChosen",
    "IntentId",
    "InvalidSignature",
    "KeyHandle",
    "KeySet",
    "Never",
    "ProtocolRule",
    "PublicKey",
    "Receipt",
    "Refused",
    "Resolution",
    "Signature",
    "SignedBy",
    "Signer",
    "Unavailable",
    "Unknown",
    "Verifier",
    "WasRefused",
    "new_intent_id",
]

# a type checker that saw this would take any misspelt name for one that it gives
if not TYPE_CHECKING:
    _LAZY = {
        "AsyncSigner": "capsign.async_signer",
        "AsyncVerifier": "capsign.async_verifier",
        "Buffer": "capsign.inputs",
        "IntentId": "capsign.inputs",
        "Signer": "capsign.signer",
        "Verifier": "capsign.verifier",
        "new_intent_id": "capsign_wire.intents",
    }

    def __getattr__(name):
        from importlib import import_module

        if name not in _LAZY:
            raise AttributeError(
                f"module 'capsign' has no attribute {name!r}", name=name, obj=sys.modules[__name__]
            )
        found = globals()[name] = getattr(import_module(_LAZY[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
