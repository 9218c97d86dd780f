#!/usr/bin/env python3
"""Makes a SoftHSM 2 token for development: configuration, token and PIN files in one directory.

Run again, it changes nothing and prints the same paths. No PIN is ever an argument, in the
environment or on a terminal: PINs are random, live in files of mode 0600, and reach the module by
C_InitToken and C_InitPIN. Standard library only.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
"""Where distributions put the module."""

TEMPLATE = Path(__file__).with_name("softhsm2.conf.template")

_RW_SESSION = 0x2 | 0x4  # CKF_RW_SESSION | CKF_SERIAL_SESSION
_SECURITY_OFFICER = 0
_TOKEN_INITIALIZED = 0x400
_USER_PIN_INITIALIZED = 0x8
_PR_SET_DUMPABLE = 4


class InitError(Exception):
    """What went wrong, and the next step."""


class _TokenInfo(ctypes.Structure):
    """CK_TOKEN_INFO, PKCS#11 2.40 section 3.2."""

    _fields_ = [
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", ctypes.c_ulong),
        ("counts", ctypes.c_ulong * 10),
        ("versions", ctypes.c_ubyte * 4),
        ("utc_time", ctypes.c_char * 16),
    ]


class Module:
    """The few PKCS#11 calls that initialise a token. SoftHSM exports them by name."""

    def __init__(self, path: Path) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise InitError(f"cannot load {path}: {error}") from error

    def call(self, function: str, *arguments: Any) -> None:
        result = getattr(self._library, function)(*arguments)
        if result:
            raise InitError(
                f"{function} failed with 0x{result:x}; look at the directory's owner and free space"
            )

    @contextmanager
    def initialized(self) -> Iterator[None]:
        self.call("C_Initialize", None)
        try:
            yield
        finally:
            self.call("C_Finalize", None)

    def slots(self) -> list[tuple[int, str, int]]:
        """Slot, token label and flags of every slot."""
        count = ctypes.c_ulong()
        self.call("C_GetSlotList", ctypes.c_ubyte(0), None, ctypes.byref(count))
        slots = (ctypes.c_ulong * count.value)()
        self.call("C_GetSlotList", ctypes.c_ubyte(0), slots, ctypes.byref(count))
        found = []
        for slot in slots[: count.value]:
            info = _TokenInfo()
            self.call("C_GetTokenInfo", ctypes.c_ulong(slot), ctypes.byref(info))
            found.append((slot, bytes(info.label).decode("utf-8", "replace").rstrip(), info.flags))
        return found

    def init_token(self, slot: int, label: str, so_pin: bytes) -> None:
        padded = label.encode().ljust(32)
        self.call("C_InitToken", ctypes.c_ulong(slot), so_pin, ctypes.c_ulong(len(so_pin)), padded)

    def init_pin(self, slot: int, so_pin: bytes, pin: bytes) -> None:
        session = ctypes.c_ulong()
        self.call(
            "C_OpenSession",
            ctypes.c_ulong(slot),
            ctypes.c_ulong(_RW_SESSION),
            None,
            None,
            ctypes.byref(session),
        )
        try:
            self.call(
                "C_Login",
                session,
                ctypes.c_ulong(_SECURITY_OFFICER),
                so_pin,
                ctypes.c_ulong(len(so_pin)),
            )
            self.call("C_InitPIN", session, pin, ctypes.c_ulong(len(pin)))
            self.call("C_Logout", session)
        finally:
            self.call("C_CloseSession", session)


def find_module(given: str | None) -> Path:
    """The SoftHSM module: the given one, or where distributions put it."""
    for candidate in (given,) if given else (os.environ.get("SOFTHSM2_MODULE"), *MODULES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    if given:
        raise InitError(f"there is no module {given}")
    raise InitError(
        "SoftHSM 2 is not installed: apt-get install softhsm2 (or name its module with --module)"
    )


def private_directory(path: Path) -> Path:
    """A directory of ours with mode 0700; one that others can enter is refused, not changed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.geteuid():
        raise InitError(f"{path} is not a directory of this user; choose another --dir")
    if status.st_mode & 0o077:
        raise InitError(f"others can enter {path}; run chmod 700 on it, or choose another --dir")
    return path


def write_once(path: Path, content: str) -> None:
    """A file of mode 0600 that was not there before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Nobody else makes a token in this directory meanwhile: replicas that share a volume start
    together, and two tokens of one label would be of no use to either. The kernel gives the lock up
    with the process.
    """
    descriptor = os.open(
        home / ".init.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def pin_in(path: Path) -> bytes:
    """The PIN in that file; a new random one where there is none."""
    if not path.exists():
        write_once(path, f"{secrets.token_hex(16)}\n")
    return path.read_bytes().strip()


def initialise(directory: Path, label: str, module_path: Path) -> dict[str, str]:
    """The paths of a token that is ready for use."""
    if (
        not 1 <= len(label.encode()) <= 32
        or not label.isprintable()
        or label != label.strip()
        or "/" in label
        or label.startswith(".")
    ):
        raise InitError(
            "a label has 1 to 32 bytes, no '/', no leading dot, no blanks around it and "
            "no control characters"
        )
    home = private_directory(directory.absolute())
    with alone(home):
        return _initialise(home, label, module_path)


def _is_utf8(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def _initialise(home: Path, label: str, module_path: Path) -> dict[str, str]:
    tokens = private_directory(home / "tokens")
    if (
        any(c in str(tokens) for c in "#=\r\n")
        or str(tokens) != str(tokens).strip()
        or not _is_utf8(tokens)
    ):
        raise InitError(f"softhsm2.conf cannot hold the path {tokens}; choose another --dir")
    conf = home / "softhsm2.conf"
    if not conf.exists():
        write_once(conf, TEMPLATE.read_text(encoding="utf-8").format(tokens=tokens))
    pin_file, so_pin_file = home / f"{label}.pin", home / f"{label}.so-pin"
    os.environ["SOFTHSM2_CONF"] = str(conf)
    module = Module(module_path)
    with module.initialized():
        slots = module.slots()
        mine = [
            (slot, flags)
            for slot, name, flags in slots
            if flags & _TOKEN_INITIALIZED and name == label
        ]
        if len(mine) > 1:
            raise InitError(
                f"{len(mine)} tokens in {home} are labelled {label!r}; choose another --dir"
            )
        if mine and not pin_file.exists():
            raise InitError(
                f"the token {label!r} is there, but its PIN file {pin_file} is not; "
                f"restore it, or choose another --dir"
            )
        # PIN files come first: a crash after this line leaves PINs without a token, and the next
        # run uses them.
        pin, so_pin = pin_in(pin_file), pin_in(so_pin_file)
        if mine:
            slot, flags = mine[0]
        else:
            flags = 0
            slot = next(slot for slot, _, flags_ in slots if not flags_ & _TOKEN_INITIALIZED)
            module.init_token(slot, label, so_pin)
        # A crash between the two leaves a token without a user PIN; the next run sees the flag and
        # goes on from here.
        if not flags & _USER_PIN_INITIALIZED:
            module.init_pin(slot, so_pin, pin)
    return {
        "module": str(module_path),
        "conf": str(conf),
        "label": label,
        "pin_file": str(pin_file),
        "so_pin_file": str(so_pin_file),
        "tokens": str(tokens),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--dir",
        required=True,
        type=Path,
        help="directory of the token; made with mode 0700 if absent",
    )
    parser.add_argument(
        "--label", default="capsign", help="the token's label (default: %(default)s)"
    )
    parser.add_argument(
        "--module",
        help="SoftHSM's shared library (default: SOFTHSM2_MODULE, else where distributions put it)",
    )
    parser.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="how to print the paths"
    )
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(
            _PR_SET_DUMPABLE, 0, 0, 0, 0
        )  # no core and no memory for others: PINs pass through it
    options = parser.parse_args(arguments)
    os.umask(0o077)
    try:
        paths = initialise(options.dir, options.label, find_module(options.module))
    except (InitError, OSError) as error:
        sys.stderr.write(f"softhsm/init.py: {error}\n")
        return 1
    text = (
        json.dumps(paths)
        if options.output == "json"
        else "\n".join(f"{name:<12} {value}" for name, value in paths.items())
    )
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
