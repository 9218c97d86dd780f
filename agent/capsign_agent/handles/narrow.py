"""Narrows a handle offline: appends a Biscuit block with checks that the adapter must satisfy.
docs/formats.md, "handle".

The vocabulary is that of the adapter's authorizer, which provides the facts `algorithm`, `role` and
`time`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from capsign_wire.algorithms import BY_NAME
from capsign_wire.types.v1 import algorithms_pb2


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What one socket removes from its handles. Empty values remove nothing."""

    algorithms: tuple[str, ...] = ()
    role: str = ""
    ttl_s: int = 0
    numbers: frozenset[algorithms_pb2.Algorithm.ValueType] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "numbers", frozenset(BY_NAME[name].number for name in self.algorithms)
        )

    @property
    def nothing(self) -> bool:
        """Whether handles are used unchanged."""
        return not (self.algorithms or self.role or self.ttl_s)

    def kept(
        self, algorithms: frozenset[algorithms_pb2.Algorithm.ValueType]
    ) -> frozenset[algorithms_pb2.Algorithm.ValueType]:
        """The algorithms that remain."""
        return algorithms & self.numbers if self.algorithms else algorithms

    def ends(self, now: float, expires_at: float) -> float:
        """When the narrowed handle ends, seconds since 1970."""
        return min(expires_at, now + self.ttl_s) if self.ttl_s else expires_at

    def apply(self, token: bytes, mint_public_key: bytes, expires_at: float) -> bytes:
        """The token with one more block. Raises ValueError if the token is not one of this
        mint's.
        """
        if self.nothing:
            return token
        biscuit = _library()
        lines, values = [], dict[str, Any]()
        if self.algorithms:
            lines.append("check if algorithm($a), {algorithms}.contains($a);")
            values["algorithms"] = list(self.algorithms)
        if self.role:
            lines.append("check if role($r), $r == {role};")
            values["role"] = self.role
        if self.ttl_s:
            lines.append("check if time($t), $t < {until};")
            values["until"] = datetime.fromtimestamp(int(expires_at), UTC)
        try:
            root = biscuit.PublicKey.from_bytes(mint_public_key, biscuit.Algorithm.Ed25519)
            narrowed = biscuit.Biscuit.from_bytes(token, root).append(
                biscuit.BlockBuilder("\n".join(lines), values)
            )
        except (
            biscuit.BiscuitValidationError,
            biscuit.BiscuitBlockError,
            biscuit.DataLogError,
        ) as error:
            raise ValueError(f"the handle cannot be narrowed: {type(error).__name__}") from None
        return bytes(narrowed.to_bytes())


def _library() -> Any:
    """biscuit-python, loaded only where a socket narrows. Untyped: its stubs lag behind its
    functions.
    """
    import biscuit_auth

    return biscuit_auth
