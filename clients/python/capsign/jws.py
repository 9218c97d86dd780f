"""Reads a JWS in its compact form (RFC 7515 section 7.1), and does not look at its signature."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from capsign.errors import InvalidSignature, Refused
from capsign.jose import octets

MAX_TOKEN = 256 * 1024
"""Longest JWS that is read, characters."""


@dataclass(frozen=True, slots=True)
class Jws:
    """Its parts. `signed` is what the signature is over."""

    header: dict[str, Any]
    kid: str
    algorithm: str
    payload: bytes
    signature: bytes
    signed: bytes


def read(token: str | bytes) -> Jws:
    """Raises Refused for what is no JWS with a kid, and for one that demands what is not understood
    here (`crit`).
    """
    text = token.decode("ascii", "replace") if isinstance(token, bytes) else token
    parts = text.split(".") if len(text) <= MAX_TOKEN else []
    try:
        head, payload, signature = parts
        header = json.loads(octets(head))
        kid, algorithm = header["kid"], header["alg"]
        value, content = octets(signature), octets(payload)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise refused("This is no JWS in the compact form with a kid.") from None
    if "crit" in header or not isinstance(kid, str):
        raise refused("This JWS demands what is not understood here.")
    return Jws(header, kid, algorithm, content, value, f"{head}.{payload}".encode())


def refused(detail: str) -> Refused:
    """The error of a signature that is not looked at."""
    return Refused("INPUT_MALFORMED", detail, field="signature")


def invalid(detail: str) -> InvalidSignature:
    """The error of one that is not good."""
    return InvalidSignature("SIGNATURE_INVALID", detail, field="signature")
