"""What a call states about its handle and its context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandleSelector:
    """Handle, algorithm and context of a call. `handle` is an id; a KeyHandle is replaced by its
    grant and purpose. An empty algorithm is left open.
    """

    purpose: str | None
    grant: str | None
    handle: str | None
    algorithm: str
    protocol: str = ""
    role: str = ""
    protocol_version: str = ""
    transcript: bytes = b""
