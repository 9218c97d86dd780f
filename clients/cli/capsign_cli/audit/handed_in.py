"""What relying parties hand in: signatures that they hold, or hashes of them, a line each."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from capsign_cli.failures import USAGE, CliError

MAX_LINES = 1_000_000
"""They are kept in memory until their entry is found."""

MAX_LINE = 16_384
"""Characters; an ML-DSA-65 signature has 4412 in base64."""

_HASH = re.compile(r"(sha256:)?[0-9a-fA-F]{64}", re.ASCII)


def hashes(path: Path) -> Iterator[bytes]:
    """SHA-256 of each signature of the file. Raises CliError for a line that is none.

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
            yield _hash_of(path, number, text)


def _hash_of(path: Path, number: int, text: str) -> bytes:
    if _HASH.fullmatch(text):
        return bytes.fromhex(text[-64:])
    if text.count(".") == 2:  # RFC 7515 section 7.1: header, payload, signature
        text = text.rpartition(".")[2]
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        signature = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _refused(path, number, "is no signature, and no hash of one") from None
    if not signature:
        raise _refused(path, number, "is an empty signature")
    return hashlib.sha256(signature).digest()


def _refused(path: Path, number: int, what: str) -> CliError:
    return CliError(
        USAGE,
        "SIGNATURES_FILE",
        f"{path}: line {number} {what}.",
        "A line is a compact JWS, a signature in base64, or its SHA-256 in hexadecimal.",
    )
