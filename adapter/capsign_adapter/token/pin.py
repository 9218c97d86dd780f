"""Reads a PIN from a file that only its owner can read. The PIN goes to the token's login and nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from capsign_adapter.token.interface import TokenUnavailableError

PIN_MAX_LEN = 255
"""Longest PIN in bytes: what SoftHSM takes; PKCS#11 leaves it to the token."""


class PinFileError(TokenUnavailableError):
    """The PIN file cannot be used as it is: nobody has asked the token yet."""


def read_pin(path: Path) -> str:
    """The PIN: the file's one line, without its line end. Raises PinFileError, which names the next step and not the PIN.

    A symbolic link is refused because whoever can write the directory could point it at another file; a mode that others
    can read is refused because the PIN is then no secret.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        what = "is a symbolic link; name the file itself" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise PinFileError(f"the PIN file {path} {what}") from error
    try:
        _refuse_unless_private(path, os.fstat(descriptor))
        content = os.read(descriptor, PIN_MAX_LEN + 3)
    finally:
        os.close(descriptor)
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line or len(line) > PIN_MAX_LEN:
        raise PinFileError(f"the PIN file {path} must hold one line of 1 to {PIN_MAX_LEN} bytes")
    try:
        pin = line.decode("utf-8")
    except UnicodeDecodeError:
        raise PinFileError(f"the PIN file {path} is not UTF-8") from None  # the cause would quote the PIN
    if not pin.isprintable():
        raise PinFileError(f"the PIN file {path} must hold one line without control characters")
    return pin


def _refuse_unless_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise PinFileError(f"the PIN file {path} is not a regular file")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise PinFileError(f"the PIN file {path} has mode {mode:04o}: others can reach it; run chmod 600 on it")
    if status.st_uid not in (0, os.geteuid()):
        raise PinFileError(f"the PIN file {path} belongs to user {status.st_uid}; run chown {os.geteuid()} on it")
