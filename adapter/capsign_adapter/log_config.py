"""The section `[log]` of the adapter's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
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
    published_file: Path | None = None
    """Where the last checkpoint is kept that this adapter may have shown, outside the database: it
    refuses to go on from an older copy of the store. With SQLite `<database>.checkpoint` if left
    out, otherwise none. Replicas that share a disk may share it.
    """


def log_faults(log: LogConfig) -> Iterator[tuple[str, str]]:
    """Returns keys and sentences about what is wrong with them."""
    if log.published_file is not None and not log.published_file.is_absolute():
        yield "log.published_file", "must be an absolute path."
