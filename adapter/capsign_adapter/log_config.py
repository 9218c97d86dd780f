"""The section `[log]` of the adapter's configuration."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class Retention(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where old leaves of the log go: entries, the agents' batches and their hashes, as files. They
    are part of the log from then on.
    """

    directory: Path
    """A directory that all replicas have at this path, on a disk that is backed up."""
    after_days: Annotated[int, Meta(ge=0, le=36_500)] = 90
    """Days after which leaves move there, once a checkpoint that as many witnesses have cosigned as
    `[log.witnesses]` demands covers them. 0: none move any more, and those that have are read.
    """
    unwitnessed: bool = False
    """Leaves move though no witness is demanded: then a checkpoint that the log alone has signed is
    enough, and whoever has its key can replace what was moved. `capsign drift` names it.
    """


class Witnesses(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who cosigns checkpoints, and how many of them must before anybody sees one."""

    policy: Path
    """A tlog-policy file (C2SP): a line for each witness, with the URL under which it is asked, and
    the quorum. `quorum none`: cosignatures are gathered and none is waited for. Lines for logs, if
    there are any, must include this log. Read at the start.
    """
    timeout_ms: Annotated[int, Meta(ge=100, le=60_000)] = 5000
    """Longest wait for an answer of a witness."""
    round_ms: Annotated[int, Meta(ge=100, le=3_600_000)] = 10_000
    """How long one checkpoint waits for cosignatures before a newer one takes its place."""
    ca_file: Path | None = None
    """PEM of the authorities of the witnesses' certificates; those of the system if left out."""


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
    retention: Retention | None = None
    published_file: Path | None = None
    """Where the last checkpoint is kept that this adapter may have shown, outside the database: it
    refuses to go on from an older copy of the store. With SQLite `<database>.checkpoint` if left
    out, otherwise none. Replicas that share a disk may share it.
    """
    witnesses: Witnesses | None = None
    """Without this section nobody is asked to cosign."""


def log_faults(log: LogConfig) -> Iterator[tuple[str, str]]:
    """Returns keys and sentences about what is wrong with them."""
    if log.published_file is not None and not log.published_file.is_absolute():
        yield "log.published_file", "must be an absolute path."
    if log.retention is not None and not log.retention.directory.is_absolute():
        yield "log.retention.directory", "must be an absolute path."
    if log.witnesses is not None and not log.witnesses.policy.is_absolute():
        yield "log.witnesses.policy", "must be an absolute path."
