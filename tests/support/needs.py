"""What a test needs from the machine. Absent, the test fails and says how to get it: a skipped test
proves nothing.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed: apt-get install {package}", pytrace=False)
    return found


def _library(variable: str, patterns: tuple[str, ...], package: str) -> Path:
    given = os.environ.get(variable)
    candidates = (
        [Path(given)]
        if given
        else [path for pattern in patterns for path in sorted(Path("/").glob(pattern))]
    )
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    pytest.fail(
        f"{package} is not installed: apt-get install {package} (or set {variable} to its module)",
        pytrace=False,
    )


def softhsm() -> Path:
    """The SoftHSM 2 module."""
    places = (
        "usr/lib/softhsm/libsofthsm2.so",
        "usr/lib64/*/libsofthsm2.so",
        "usr/local/lib/softhsm/libsofthsm2.so",
    )
    return _library("SOFTHSM2_MODULE", places, "softhsm2")


def nss() -> Path:
    """The NSS softokn module."""
    places = (
        "usr/lib/*/libsoftokn3.so",
        "usr/lib/*/nss/libsoftokn3.so",
        "usr/lib64/libsoftokn3.so",
    )
    return _library("NSS_SOFTOKN_MODULE", places, "libnss3")


def libsodium() -> Path:
    """The library that signs Ed25519 faster than OpenSSL."""
    places = ("usr/lib/*/libsodium.so.2[36]", "usr/lib64/libsodium.so.2[36]")
    return _library("LIBSODIUM", places, "libsodium23")


def certutil() -> str:
    """The tool that makes an NSS database."""
    return _program("certutil", "libnss3-tools")


def pkcs11_tool() -> str:
    """OpenSC's command line for tokens."""
    return _program("pkcs11-tool", "opensc")
