"""Metrics about evidence, as rows of the catalogue."""

from __future__ import annotations

from capsign_wire.instruments import Instrument, Kind

_KINDS = {"kind": frozenset({"signed", "refused", "never", "reported"})}
_WITNESS = {
    "outcome": frozenset({"cosigned", "overtaken", "refused", "inconsistent", "unavailable"})
}
_COLD_READS = {"result": frozenset({"done", "late", "refused"})}
_TICKERS = {
    "ticker": frozenset(
        {
            "approvals",
            "authority",
            "barrier",
            "bundle",
            "checkpoint",
            "collect",
            "custody",
            "drift",
            "epoch",
            "growth",
            "look.health",
            "look.store",
            "look.token",
            "memory",
            "policy",
            "reconcile",
            "reconcile-lag",
            "retention",
            "rollouts",
            "summaries",
            "sweep",
        }
    )
}

ROWS = (
    Instrument(
        "capsign.evidence.bytes",
        Kind.COUNTER,
        "By",
        "Evidence written, by what it is about.",
        _KINDS,
    ),
    Instrument("capsign.store.bytes", Kind.GAUGE, "By", "What the store takes on its disk.", {}),
    Instrument("capsign.store.free", Kind.GAUGE, "By", "What the store's disk has left.", {}),
    Instrument(
        "capsign.journal.share",
        Kind.GAUGE,
        "1",
        "Share of an agent's journal that the records of one socket take, of the one with most.",
        {},
    ),
    Instrument(
        "capsign.agent.split_view",
        Kind.GAUGE,
        "{adapter}",
        "Adapters that this agent uses no more: they showed another log. Above 0 is an incident.",
        {},
    ),
    Instrument(
        "capsign.agent.checkpoint.age",
        Kind.GAUGE,
        "s",
        "Time since an adapter last showed a checkpoint that extends what was seen.",
        {},
    ),
    Instrument(
        "capsign.witness.answers",
        Kind.COUNTER,
        "{answer}",
        "What came of asking a witness to cosign a checkpoint.",
        _WITNESS,
    ),
    Instrument(
        "capsign.witness.behind",
        Kind.GAUGE,
        "s",
        "How long there have been leaves that no checkpoint with enough cosignatures covers.",
        {},
    ),
    Instrument(
        "capsign.log.cold",
        Kind.GAUGE,
        "{leaf}",
        "Leaves of the log that were moved to cold files.",
        {},
    ),
    Instrument(
        "capsign.log.cold.reads",
        Kind.COUNTER,
        "{read}",
        "Reads of leaves in cold files, by what came of them.",
        _COLD_READS,
    ),
    Instrument(
        "capsign.ticker.overdue",
        Kind.GAUGE,
        "s",
        "For how long a periodic task of this replica has not been done: it fails, or hangs.",
        _TICKERS,
    ),
    Instrument(
        "capsign.export.events",
        Kind.COUNTER,
        "{event}",
        "Events that the receiver of an export has taken.",
        {},
    ),
    Instrument(
        "capsign.export.failures",
        Kind.COUNTER,
        "{attempt}",
        "Attempts of an export that failed, by whose answer was missing.",
        {"of": frozenset({"sink", "source"})},
    ),
    Instrument(
        "capsign.export.lag",
        Kind.GAUGE,
        "{leaf}",
        "Leaves of the log that an export has not brought to its receiver.",
        {},
    ),
    Instrument(
        "capsign.export.age",
        Kind.GAUGE,
        "s",
        "Time since an export was last at the end of the log.",
        {},
    ),
)
"""Part of `metric_catalogue`."""
