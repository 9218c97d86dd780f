"""The adapter's configuration: one TOML file, overridden by CAPSIGN_ADAPTER_* variables. Unknown keys are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where one replica listens: one process, one address."""

    address: str
    """host:port for agents, operators and auditors, over mTLS."""
    health_address: str = "127.0.0.1:0"
    """host:port for grpc.health.v1 without TLS; keep it on the loopback or pod network."""
    streams: Annotated[int, Meta(ge=4, le=4096)] = 32
    """Calls and streams served at once, each on a thread of its own; the next one waits, then is refused."""


class Tls(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files in PEM. They are read again when they change."""

    certificate: Path
    private_key: Path
    client_ca: Path


class TokenConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The PKCS#11 token. The PIN comes from a file that only its owner can read."""

    module: Path
    label: str
    pin_file: Path
    config: Path | None = None
    """What the module itself reads: softhsm2.conf for SoftHSM, the database directory for NSS."""


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The store: sqlite:///path or postgresql://user@host/database, with the password in a file."""

    url: str
    password_file: Path | None = None


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The evidence log."""

    origin: Annotated[str, Meta(max_length=255, pattern=r"^[!-*,-~]+$")]
    """First line of every checkpoint: a URL without scheme, unique for ever (C2SP tlog-checkpoint)."""
    checkpoint_every_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    """How often a grown log gets a new checkpoint without being asked."""


class Subkeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the subkeys in memory."""

    most: Annotated[int, Meta(ge=1, le=1_048_576)] = 4096
    """Subkeys held at once."""
    seconds: Annotated[int, Meta(ge=1, le=86_400)] = 300
    """Longest life of a subkey in memory."""


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often this replica looks for changes that others made."""

    poll_ms: Annotated[int, Meta(ge=10, le=60_000)] = 200
    """Between looks at the revocation epoch, which another replica's `revoke` waits for. A commit compares the epoch itself."""
    lease_ms: Annotated[int, Meta(ge=500, le=60_000)] = 3000
    """How long after the start of its commit a batch may be released, and so the longest that a dead replica, or a peer that
    does not read, delays a revocation."""
    lease_margin_ms: Annotated[int, Meta(ge=250, le=60_000)] = 1000
    """How much longer than a lease a revocation waits: for clocks that run at different rates and threads that were paused."""
    collect_every_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    """Between collections of intents older than the retention."""
    refusals_per_second: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    """Refusals recorded for one workload each second before it is rate limited; protects the log from floods."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    listen: Listen
    tls: Tls
    token: TokenConfig
    store: StoreConfig
    log: LogConfig
    policy: Path
    subkeys: Subkeys = Subkeys()
    control: Control = Control()
    drain_seconds: Annotated[float, Meta(ge=0, le=600)] = 10.0
    """How long a stopping adapter waits for calls in flight."""
