"""The cold files of the log: where they are, and the ticker that fills them."""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.assembly.witnesses import WitnessParts
from capsign_adapter.config import Config
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.retention import Retention, demand_files
from capsign_adapter.sign.tickers import BESIDE_SIGNERS, Ticker
from capsign_adapter.store.cold_reads import ColdReads
from capsign_adapter.store.interfaces.whole import Store

EVERY_S = 10.0
"""Between looks for leaves that are old enough, seconds."""

DAY_MS = 24 * 3_600_000


def read_cold_files(config: Config, store: Store, metrics: Metrics) -> None:
    """The store reads what was moved; before anything reads the log. Raises SettingsError if leaves
    were moved and no directory is named, or their files are not there, or do not answer in time.
    """
    settings = config.log.retention
    if settings is None:
        moved = store.moved_leaves()
        if moved:
            raise SettingsError(
                f"The first {moved} leaves of the log are in cold files. Name their directory in "
                f"`log.retention.directory`.",
                key="log.retention.directory",
            )
        return
    directory = settings.directory
    reads = ColdReads(count=metrics.counter("capsign.log.cold.reads").add)
    try:
        if not reads.run(directory.parent.is_dir):
            raise SettingsError(
                f"There is no directory {directory.parent} to make {directory.name} in. Make it, "
                f"or mount its volume.",
                key="log.retention.directory",
            )
        reads.run(lambda: demand_files(store, directory))
    except FailureError as error:
        raise SettingsError(
            f"{error.detail} {error.row.advice}", key="log.retention.directory"
        ) from None
    store.use_cold_files(directory, reads)


def moves_unwitnessed(config: Config, witnesses: WitnessParts) -> bool:
    """Whether leaves move once a checkpoint covers them that the log alone has signed. Raises
    SettingsError if they would and the configuration does not say that they may: files can be
    replaced by whoever has the log's key, unless somebody else remembers the tree.
    """
    settings = config.log.retention
    if settings is None or not settings.after_days or witnesses.demanded:
        return False
    if not settings.unwitnessed:
        raise SettingsError(
            "Leaves would move to cold files, and no witness has to cosign what covers them. Name "
            "witnesses and a quorum (`log.witnesses.policy`), set `after_days = 0`, or, to have "
            "them move all the same, `unwitnessed = true`.",
            key="log.retention.unwitnessed",
        )
    logs.warning("retention.unwitnessed", after_days=settings.after_days)
    return True


def retention_ticker(
    config: Config,
    state: State,
    metrics: Metrics,
    witnesses: WitnessParts,
    mine: Callable[[], bool],
) -> list[Ticker]:
    """Returns the ticker, if the configuration names a directory. `mine` says whether it is for
    this replica to move leaves.
    """
    settings = config.log.retention
    if settings is None:
        return []
    retention = Retention(
        state.store,
        settings.directory,
        settings.after_days * DAY_MS,
        state.checkpoints.witnessed if witnesses.demanded else state.checkpoints.stored,
        lambda: state.snapshots.policy().digest,
        now_ms,
        mine,
    )
    metrics.gauge("capsign.log.cold", lambda: retention.moved)
    return [Ticker("retention", EVERY_S, retention.step, share=BESIDE_SIGNERS)]
