"""Keeps SoftHSM's tokens through a kill.

SoftHSM (2.6.1, and its main branch as of November 2026) opens `token.object` with O_TRUNC at every
login and writes it anew. A process that is killed in between leaves it empty. It holds what the
PINs open: without it every key of the token is lost for good. So a copy is made before each login,
and an empty file is filled from it. Key objects are written once, when they are made.
docs/decisions/0054-a-softhsm-token-survives-a-kill.md has the figures.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from capsign_wire import logs

WRITTEN_AT_LOGIN = "token.object"
COPY = "token.object.kept"
"""SoftHSM reads nothing but names that end in `.object`, `.lock` or are `generation`."""

MAX_BYTES = 1 << 16
"""Longest file that is copied, bytes; SoftHSM's have a few hundred."""

_GENERATION = 8
"""The file begins with a counter of its writes, `u64`, which says nothing about the token."""

_TOKENS = re.compile(r"^\s*directories\.tokendir\s*=\s*(.+?)\s*$", re.MULTILINE)


def keep(config: Path | None) -> None:
    """Copy what the next login could destroy, if it is not copied already. `config`: softhsm2.conf;
    None: as SoftHSM finds it.

    Does nothing where the tokens are not in files. A copy that cannot be made is logged, and the
    login goes on: a full disk must not end signing.
    """
    for directory in _token_directories(config):
        try:
            content = _content(directory / WRITTEN_AT_LOGIN)
            if content and content[_GENERATION:] != _content(directory / COPY)[_GENERATION:]:
                _put(directory / COPY, content)
        except OSError as error:
            logs.warning("token.copy_failed", errno=error.errno or 0)


def restore(config: Path | None) -> bool:
    """Fill the files that a kill has left empty from their copies. Returns whether there was one.
    To be called once nobody was seen to write them for a while; a login that writes at the same
    moment writes the same.
    """
    restored = False
    for directory in _token_directories(config):
        damaged = directory / WRITTEN_AT_LOGIN
        try:
            if damaged.stat().st_size == 0 and (content := _content(directory / COPY)):
                _put(damaged, content)
                restored = True
                logs.warning("token.restored", directory=directory.name)
        except OSError as error:
            logs.warning("token.restore_failed", errno=error.errno or 0)
    return restored


def _token_directories(config: Path | None) -> Iterator[Path]:
    """The directories of the tokens."""
    for path in [config] if config is not None else _usual_configurations():
        try:
            found = _TOKENS.search(path.read_text("utf-8", "replace"))
        except OSError:
            continue
        if found:
            yield from (file.parent for file in Path(found[1]).glob(f"*/{WRITTEN_AT_LOGIN}"))
        return


def _usual_configurations() -> list[Path]:
    """Where SoftHSM looks, the first that is there counts."""
    named = os.environ.get("SOFTHSM2_CONF")
    if named:
        return [Path(named)]
    own = Path(os.environ.get("HOME", "/nonexistent")) / ".config/softhsm2/softhsm2.conf"
    return [own, Path("/etc/softhsm/softhsm2.conf"), Path("/etc/softhsm2.conf")]


def _content(file: Path) -> bytes:
    """What the file holds; nothing, if it is not there or is too long to be SoftHSM's."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return b""
    return content if len(content) <= MAX_BYTES else b""


def _put(file: Path, content: bytes) -> None:
    """Whole and durable, or as before."""
    new = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
