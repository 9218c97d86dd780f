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
    """The PIN file cannot be used as it is: nobody has asked the token yet."""


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is written or replaced; None where there is none. Says nothing
    about the PIN.
    """
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def read_pin(path: Path) -> str:
    """The PIN: the file's one line, without its line end. Raises PinFileError, which names the next
    step and not the PIN.

    The file is held to what `settings.read_secret` demands of every secret: a link is followed only
    within its own directory, as a mounted Kubernetes Secret has it, because whoever can write
    elsewhere could put another file there.
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
