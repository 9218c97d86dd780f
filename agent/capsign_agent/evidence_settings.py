"""The sections of the configuration about evidence: the journal, and the log of which the agent is
a witness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bounded local record of what was signed."""

    dir: Path
    max_bytes: Annotated[int, Meta(ge=1_048_576, le=17_179_869_184)] = 67_108_864
    """At this size the agent stops signing until records have gone upstream."""
    reserved_percent: Annotated[int, Meta(ge=0, le=100)] = 50
    """How much of it is kept for the sockets in equal shares. The rest is for whoever comes first:
    a container whose records take that and its share is refused, and the others go on.
    """
    flush_ms: Annotated[int, Meta(ge=1, le=600_000)] = 500
    """How long records gather before they go upstream; up to 3 s where adapters take long to
    answer. Those of a renewal that changed nothing wait for others, or 15 minutes.
    """


class Log(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The adapters' evidence log, of which each agent is a witness: what it sees must extend what
    it saw before. What it has seen is kept in the directory `witness` beside the journal.
    """

    key: Annotated[str, Meta(max_length=512)] = ""
    """The log's verifier key (C2SP signed-note, name+id+base64), as `capsign log verify` takes it.
    Empty: the first one that an adapter shows is kept.
    """
    look_every_s: Annotated[int, Meta(ge=1, le=3600)] = 60
    """How often the log is looked at through each adapter, with jitter."""


def faults(log: Log) -> list[tuple[str, str]]:
    """Key and sentence of what is wrong in the section."""
    if not log.key:
        return []
    from capsign_evidence.note import NoteError, VerifierKey  # with it comes cryptography

    try:
        VerifierKey.parse(log.key)
    except NoteError as error:
        return [("log.key", f"is no verifier key: {error}.")]
    return []
