"""What relying parties hand in: signatures that they hold, or hashes of them, a line each."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from capsign_cli.failures import USAGE, CliError

MAX_LINES = 1_000_000
"""They are kept in memory until their entry is found."""

MAX_LINE = 16_384
"""Characters; an ML-DSA-65 signature has 4412 in base64."""

_HASH = re.compile(r"(sha256:)?[0-9a-fA-F]{64}", re.ASCII)


def hashes(path: Path) -> Iterator[tuple[bytes, ...]]:
    """For each signature of the file the SHA-256 of each form that the log may have it in. Raises
    CliError for a line that is none.

    A line is a JWS in compact form, a signature in base64 or base64url, or the SHA-256 of one in 64
    hexadecimal digits, with or without `sha256:` before them. Empty lines and those that begin with
    # are passed over.
    """
    with path.open(encoding="ascii", errors="replace") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            if number > MAX_LINES:
                raise _refused(path, number, f"is beyond the {MAX_LINES} that are read at once")
            if len(text) > MAX_LINE:
                raise _refused(path, number, f"is longer than {MAX_LINE} characters")
            yield _hashes_of(path, number, text)


def _hashes_of(path: Path, number: int, text: str) -> tuple[bytes, ...]:
    if _HASH.fullmatch(text):
        return (bytes.fromhex(text[-64:]),)
    algorithm = None
    if text.count(".") == 2:  # RFC 7515 section 7.1: header, payload, signature
        algorithm = _algorithm(text.partition(".")[0])
        text = text.rpartition(".")[2]
    try:
        signature = _decoded(text)
    except ValueError:
        raise _refused(path, number, "is no signature, and no hash of one") from None
    if not signature:
        raise _refused(path, number, "is an empty signature")
    return tuple(hashlib.sha256(one).digest() for one in _forms(signature, algorithm))


def _forms(signature: bytes, algorithm: str | None) -> tuple[bytes, ...]:
    """The signature as the log may have it: of ECDSA it has DER (X9.62), and a JWS has R || S (RFC
    7518 section 3.4). Without an algorithm the length alone says whether it may be that.
    """
    from capsign.jose import COORDINATE_BYTES
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    half = len(signature) // 2
    named = COORDINATE_BYTES.get(algorithm or "")
    if len(signature) % 2 or half not in ({named} if algorithm else COORDINATE_BYTES.values()):
        return (signature,)
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    der = encode_dss_signature(r, s)
    return (der,) if algorithm else (signature, der)


def _algorithm(header: str) -> str | None:
    """What a JWS says in its header, None if nothing."""
    try:
        found = json.loads(_decoded(header))["alg"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) and found else None


def _decoded(text: str) -> bytes:
    """Base64 in either alphabet, padded or not. Raises ValueError."""
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)


def _refused(path: Path, number: int, what: str) -> CliError:
    return CliError(
        USAGE,
        "SIGNATURES_FILE",
        f"{path}: line {number} {what}.",
        "A line is a compact JWS, a signature in base64, or its SHA-256 in hexadecimal.",
    )
