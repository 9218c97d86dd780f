"""The cold files of the log: where they are, and the ticker that fills them."""

from __future__ import annotations

from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.sign.clock import now_ms
from capsign_adapter.sign.retention import Retention
from capsign_adapter.sign.tickers import Ticker

EVERY_S = 60.0
"""Between looks for leaves that are old enough, seconds."""

DAY_MS = 24 * 3_600_000


def retention_ticker(config: Config, state: State, metrics: Metrics) -> list[Ticker]:
    """Returns the ticker, if the configuration names a directory. Raises SettingsError if leaves
    were moved and none is named, or their files are not there.
    """
    settings = config.log.retention
    if settings is None:
        moved = state.store.moved_leaves()
        if moved:
            raise SettingsError(
                f"The first {moved} leaves of the log are in cold files. Name their directory in "
                f"`log.retention.directory`.",
                key="log.retention.directory",
            )
        return []
    retention = Retention(
        state.store,
        settings.directory,
        settings.after_days * DAY_MS,
        state.checkpoints.stored,
        lambda: state.snapshots.policy().digest,
        now_ms,
    )
    if not settings.directory.parent.is_dir():
        raise SettingsError(
            f"There is no directory {settings.directory.parent} to make "
            f"{settings.directory.name} in. Make it, or mount its volume.",
            key="log.retention.directory",
        )
    try:
        retention.demand_files()
    except FailureError as error:
        raise SettingsError(
            f"{error.detail} {error.row.advice}", key="log.retention.directory"
        ) from None
    metrics.gauge("capsign.log.cold", lambda: retention.moved)
    return [Ticker("retention", EVERY_S, retention.step)]
