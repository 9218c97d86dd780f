"""The settings of a token. They hold paths only, so that they can be read and checked without the
token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which token, and how long to wait for it.

    It holds paths and never a PIN: the PIN is read at each login, and forgotten after it.
    """

    module: Path
    """The PKCS#11 module, a shared library."""
    label: str
    """The token's label: what it was initialised with."""
    pin_file: Path
    """A file with the user PIN: one line, regular, readable by its owner only."""
    config: Path | None = None
    """What the module itself reads: softhsm2.conf for SoftHSM, the database directory for NSS.
    None: as the environment says.
    """
    cautious: bool = False
    """Whether the PIN is not tried if one more wrong one would lock the token: for checks."""
    call_timeout_s: float = 10.0
    """Longest wait for one call, seconds, including the time in the queue."""
    generate_timeout_s: float = 120.0
    """Longest wait for a new key, seconds: an RSA key can take long."""
    waiting: int = 4096
    """Most calls that wait for the token's thread."""
