"""The configuration as names and values: what a process runs with, what its file says by now, and
what all replicas must have alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from capsign_adapter.config import Config

SHARED = (
    "drain_seconds",
    "listen.streams",
    "listen.message_bytes",
    "tls.source",
    "token.label",
    "log.",
    "subkeys.",
    "control.",
    "identity.",
    "reconcile.",
)
"""Settings that replicas must have alike, by name or beginning. Addresses, names and paths are each
replica's own.
"""

_OWN = ("identity.kubernetes.token_file", "identity.kubernetes.ca_file")

_HIDDEN = frozenset({"store.url"})
"""Shown as a digest: it may name people and hosts."""

MAX_VALUE = 200


class OnDisk:
    """The configuration as its file has it now. It is parsed when its bytes are others than before:
    that takes 20 ms, three times a minute. For one thread.
    """

    def __init__(self, path: Path, parse: Callable[[], Config]) -> None:
        """`parse` reads the file itself, and what overrides it."""
        self._path = path
        self._parse = parse
        self._seen: bytes | None = None
        self._config: Config | None = None

    def __call__(self) -> Config:
        """Raises OSError, and what `parse` raises."""
        now = self._path.read_bytes()
        if self._config is None or now != self._seen:
            self._config = self._parse()
            self._seen = now
        return self._config


def settings_of(config: Config) -> dict[str, str]:
    """All settings by dotted name, as text."""
    return dict(_flat("", config))


def shared_of(settings: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Those that replicas must have alike, sorted."""
    return tuple(
        sorted(
            (name, value)
            for name, value in settings.items()
            if name not in _OWN
            and any(name.startswith(one) if one.endswith(".") else name == one for one in SHARED)
        )
    )


def _flat(prefix: str, part: msgspec.Struct) -> Iterator[tuple[str, str]]:
    for field in part.__struct_fields__:
        name, value = f"{prefix}{field}", getattr(part, field)
        if isinstance(value, msgspec.Struct):
            yield from _flat(f"{name}.", value)
        else:
            yield name, _text(name, value)


def _text(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if name in _HIDDEN:
        return hashlib.sha256(str(value).encode()).hexdigest()[:16]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))[:MAX_VALUE] or "none"
    return str(value if not isinstance(value, Path) else value.as_posix())[:MAX_VALUE] or "none"
