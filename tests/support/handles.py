"""Policies, capabilities and narrowed tokens for tests of decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from biscuit_auth import Algorithm, Biscuit, BlockBuilder, PublicKey
from capsign_adapter.decide.biscuits import Mint
from capsign_adapter.decide.capability import Capability, capability_for
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_load import parse_policy
from capsign_wire.types.v1 import algorithms_pb2 as alg
from capsign_wire.types.v1 import signing_pb2

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "policy.yaml"
ORDERS = "spiffe://capsign.test/ns/shop/sa/orders"
RELEASE = "spiffe://capsign.test/ns/ci/sa/release"
KEY_HASH = bytes(range(32))
SERIAL = b"serial of 16 byt"
NOW = 1_795_000_000_000
"""Milliseconds since 1970, a whole second."""

ES256, ED25519, ES384, HS256 = (
    alg.ALGORITHM_ES256,
    alg.ALGORITHM_ED25519,
    alg.ALGORITHM_ES384,
    alg.ALGORITHM_HS256,
)


def example() -> Policy:
    return parse_policy(EXAMPLE.read_bytes())


def example_with(old: str, new: str) -> Policy:
    """The example, with a piece of its text replaced once."""
    text = EXAMPLE.read_text()
    assert old in text, old
    return parse_policy(text.replace(old, new, 1).encode())


def events(**changes) -> Capability:
    """A capability under the grant with several algorithms, protocols, roles and versions."""
    return replace(
        capability_for(example().grant("orders-events"), ORDERS, KEY_HASH, SERIAL, NOW), **changes
    )


def suffix(protocol="", role="", version="", transcript=b"") -> signing_pb2.ContextSuffix:
    return signing_pb2.ContextSuffix(
        protocol=protocol, role=role, protocol_version=version, transcript=transcript
    )


def append(mint: Mint, token: bytes, statements: str, **values) -> bytes:
    """The token with one more block."""
    root = PublicKey.from_bytes(mint.public_key, Algorithm.Ed25519)  # type: ignore[call-arg]  # its stub is older
    return bytes(
        Biscuit.from_bytes(token, root).append(BlockBuilder(statements, values)).to_bytes()
    )


def date(millis: int) -> datetime:
    return datetime.fromtimestamp(millis // 1000, UTC)
