"""What a call says about the handle that it wants, and the context that it signs in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandleSelector:
    """What a call says about handle, algorithm and context. `handle` is an id; a KeyHandle becomes
    its grant and purpose.
    """

    purpose: str | None
    grant: str | None
    handle: str | None
    algorithm: str
    protocol: str = ""
    role: str = ""
    protocol_version: str = ""
    transcript: bytes = b""
