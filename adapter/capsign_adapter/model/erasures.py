"""Tenants that were erased."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Erasure:
    """A tenant whose pepper was destroyed at revocation epoch `epoch`. For good: nothing is signed
    for a tenant of that name again. `gone_ms` is when the token had shown that it holds no pepper
    any more; 0: not yet. Times are milliseconds since 1970.
    """

    tenant: str
    epoch: int
    erased_ms: int
    gone_ms: int = 0
