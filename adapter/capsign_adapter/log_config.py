"""The section `[log]` of the adapter's configuration."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The evidence log."""

    origin: Annotated[str, Meta(max_length=255, pattern=r"^[!-*,-~]+$")]
    """First line of every checkpoint: a URL without scheme, unique for ever (C2SP
    tlog-checkpoint).
    """
    checkpoint_every_ms: Annotated[int, Meta(ge=10, le=3_600_000)] = 1000
    """How often a grown log gets a new checkpoint without being asked."""
    public: Annotated[str, Meta(pattern="^(off|hashes|readers|everything)$")] = "readers"
    """What of the log `listen.public_address` serves, as C2SP tlog-tiles. `hashes`: checkpoint and
    hashes, to anybody, and no entries. `readers`: entries and the agents' batches too, to auditors,
    responders and operators with their certificate. `everything`: all of it to anybody; entries
    name workloads. `off`: nothing.
    """
