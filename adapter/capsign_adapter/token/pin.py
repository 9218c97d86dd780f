"""Reads a PIN from a file that only its owner can read. The PIN goes to the token's login and
nowhere else.
"""

from __future__ import annotations

from pathlib import Path

from capsign_wire import settings

from capsign_adapter.token.interface import TokenUnavailableError

PIN_MAX_LEN = 255
"""Longest PIN in bytes: what SoftHSM takes; PKCS#11 leaves it to the token."""


class PinFileError(TokenUnavailableError):
    """The PIN file cannot be used. The token was not asked."""


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Returns inode, modification time (ns) and size, which change when the file is written or
    replaced; None if there is no file.
    """
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def read_pin(path: Path) -> str:
    """Returns the PIN: the file's one line, without its line end. Raises PinFileError, which names
    the next step and not the PIN.

    `settings.read_secret` checks the file as it does every secret. It follows a link only within
    its own directory, as a mounted Kubernetes Secret has it, because others may be able to replace
    files elsewhere.
    """
    try:
        content = settings.read_secret(path)
    except settings.SettingsError as error:
        raise PinFileError(str(error)) from None
    line = content.removesuffix(b"\n").removesuffix(b"\r")
    if not line or len(line) > PIN_MAX_LEN:
        raise PinFileError(f"the PIN file {path} must hold one line of 1 to {PIN_MAX_LEN} bytes")
    try:
        pin = line.decode("utf-8")
    except UnicodeDecodeError:
        # the cause would quote the PIN
        raise PinFileError(f"the PIN file {path} is not UTF-8") from None
    if not pin.isprintable():
        raise PinFileError(f"the PIN file {path} must hold one line without control characters")
    return pin
