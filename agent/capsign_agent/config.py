"""The agent's configuration: one TOML file, overridden by CAPSIGN_AGENT_<SECTION>_<KEY> variables. Unknown keys are refused.

Which process may use a socket is decided by who mounts its directory: one socket per container. A check of the caller's uid
would need SO_PEERCRED, which grpcio does not give, so no key here offers it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from capsign_wire import settings
from capsign_wire.algorithms import BY_NAME
from msgspec import Meta

ENV_PREFIX = "CAPSIGN_AGENT"

SOCKET_PATH_MAX = 107
"""Longest path of a Unix socket, bytes: sun_path of unix(7) without its final zero."""

_MODE = re.compile(r"0?[0-7]{3}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TARGET = re.compile(r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):\d{1,5}")

Millis = Annotated[int, Meta(ge=1, le=600_000)]


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The adapter's replicas and the credentials towards them. Files are PEM and read again when they change."""

    targets: Annotated[tuple[str, ...], Meta(min_length=1, max_length=16)]
    """host:port of each replica; all are used, and those that fail are avoided until they answer again."""
    ca_file: Path
    cert_file: Path
    key_file: Path
    server_name: str = ""
    """DNS name that the adapter's certificate must carry; empty: the host of the target. (gRPC's Python client compares DNS names
    and addresses only, so the adapter's SPIFFE ID cannot be demanded here: let its CA give this name to nobody else.)"""
    streams: Annotated[int, Meta(ge=1, le=8)] = 2
    """Signing streams to each target, each on a connection of its own."""
    timeout_ms: Millis = 10_000
    """Longest time a call takes; callers may ask for less."""
    connect_timeout_ms: Millis = 3_000
    """Longest time one attempt to connect takes."""
    unreachable_after_ms: Annotated[int, Meta(ge=0, le=600_000)] = 3_000
    """With no connection for this long, new calls are refused at once instead of waiting for their deadline."""


class Narrow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a socket's handles are narrowed to, offline, as a block in the handle itself. Empty: not narrowed."""

    algorithms: tuple[str, ...] = ()
    role: str = ""
    ttl_s: Annotated[int, Meta(ge=0, le=86_400)] = 0


class Socket(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One socket for one container."""

    name: str
    """Label of the caller in evidence: a policy name."""
    path: Path
    """Absolute; its directory is made with mode 0700 if it is absent, and must belong to the agent."""
    mode: str = "0660"
    """Mode of the socket itself, octal."""
    directory_mode: str = "0700"
    """Mode of its directory: 0700, or 0710, 0750, 0711 or 0755 where a container with another uid mounts it."""
    grants: tuple[str, ...] = ()
    """Grants offered on this socket; empty: all of the workload's."""
    narrow: Narrow = Narrow()


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bounded local record of what was signed."""

    dir: Path
    max_bytes: Annotated[int, Meta(ge=1_048_576, le=17_179_869_184)] = 67_108_864
    """At this size the agent stops signing until records have gone upstream."""
    flush_ms: Millis = 500
    """How long records gather before they go upstream."""


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sockets on which the agent says how it is."""

    path: Path
    """grpc.health.v1."""
    probe_path: Path | None = None
    """One line of text for `capsign_agent/probe.py`; by default the health socket's path with `.probe` after it."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the process."""

    queue_items: Annotated[int, Meta(ge=1024, le=1_048_576)] = 16_384
    """Items waiting for a stream; more are refused as OVERLOADED."""
    queue_bytes: Annotated[int, Meta(ge=4_194_304, le=1_073_741_824)] = 16_777_216
    """Bytes of input waiting for a stream."""
    stream_calls: Annotated[int, Meta(ge=1, le=4096)] = 256
    """Calls in work on one application stream; further ones wait in the socket."""
    public_keys: Annotated[int, Meta(ge=16, le=65_536)] = 1024
    """Contexts whose public keys are kept."""
    clock_skew_s: Annotated[int, Meta(ge=0, le=300)] = 5
    """How far past its expiry a handle is still sent; the adapter's clock decides."""
    drain_ms: Millis = 10_000
    """Longest time for a drain: calls in flight, then the journal."""


class Telemetry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is told to the outside, besides evidence. Exporters are set by the standard OTEL_* variables."""

    log_level: str = "info"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    upstream: Upstream
    sockets: Annotated[tuple[Socket, ...], Meta(min_length=1, max_length=16)]
    journal: Journal
    health: Health
    limits: Limits = Limits()
    telemetry: Telemetry = Telemetry()

    @property
    def probe_path(self) -> Path:
        """Where the probe connects."""
        return self.health.probe_path or Path(f"{self.health.path}.probe")


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The checked configuration. Raises settings.SettingsError with a sentence that names the key and the fix."""
    config = settings.load(path, Config, ENV_PREFIX, environ)
    for key, sentence in _faults(config):
        raise settings.SettingsError(f"The key `{key}` {sentence}", key=key)
    return config


def _faults(config: Config) -> list[tuple[str, str]]:
    faults: list[tuple[str, str]] = []
    for index, target in enumerate(config.upstream.targets):
        if not _TARGET.fullmatch(target):
            faults.append((f"upstream.targets[{index}]", "must be host:port."))
    names = [one.name for one in config.sockets]
    for index, one in enumerate(config.sockets):
        where = f"sockets[{index}]"
        if not _NAME.fullmatch(one.name):
            faults.append((f"{where}.name", "must be lower-case letters, digits, '.', '_' and '-', at most 64."))
        if names.count(one.name) > 1:
            faults.append((f"{where}.name", "is used twice; give each socket its own."))
        if not _MODE.fullmatch(one.mode):
            faults.append((f"{where}.mode", 'must be an octal mode, for example "0660".'))
        if one.directory_mode not in {"0700", "0710", "0750", "0711", "0755"}:
            faults.append((f"{where}.directory_mode", "must be 0700, 0710, 0750, 0711 or 0755: only the agent may write there."))
        faults += [
            (f"{where}.narrow.algorithms", f"names an algorithm that is not known; known are {', '.join(BY_NAME)}.")
            for name in one.narrow.algorithms
            if name not in BY_NAME
        ]
        if one.narrow.role and not _NAME.fullmatch(one.narrow.role):
            faults.append((f"{where}.narrow.role", "must be a policy name."))
    paths = [one.path for one in config.sockets] + [config.health.path, config.probe_path]
    for path in paths:
        if not path.is_absolute() or len(str(path).encode()) > SOCKET_PATH_MAX:
            faults.append(
                (str(path), f"must be an absolute path of at most {SOCKET_PATH_MAX} bytes; choose a shorter directory.")
            )
        if paths.count(path) > 1:
            faults.append((str(path), "is used for two sockets; give each its own."))
    if config.telemetry.log_level not in {"debug", "info", "warning", "error"}:
        faults.append(("telemetry.log_level", "must be debug, info, warning or error."))
    return faults
