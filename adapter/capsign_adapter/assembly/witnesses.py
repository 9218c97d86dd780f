"""The witnesses of a replica: who is asked, on which threads, and what the start asks them."""

from __future__ import annotations

import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from capsign_evidence.tlog_policy import PolicyError, QuorumError, TlogPolicy, Witness, parse_policy
from capsign_wire import logs, pem, settings, tls_trust
from capsign_wire.telemetry import Metrics

from capsign_adapter.assembly.state import State
from capsign_adapter.config import Config
from capsign_adapter.log_config import Witnesses
from capsign_adapter.sign.clock import monotonic_ms, now_ms
from capsign_adapter.sign.tickers import Ticker
from capsign_adapter.witnesses.asking import Asking, WitnessedLog
from capsign_adapter.witnesses.client import NoAnswerError, WitnessClient
from capsign_adapter.witnesses.publication import Publication

KEY = "log.witnesses.policy"


class WitnessParts:
    """Of one replica. Without witnesses in its configuration it has none, and does nothing."""

    def __init__(self, config: Config, state: State, metrics: Metrics) -> None:
        """Raises SettingsError if the policy cannot be met."""
        self._asking: list[Asking] = []
        self._publication: Publication | None = None
        self._every_s = config.log.checkpoint_every_ms / 1000
        section = config.log.witnesses
        if section is None:
            return
        policy = _policy(section, [key.text() for key in state.checkpoints.keys.verifiers])
        publication = self._publication = Publication(
            state.store,
            policy,
            lambda: state.checkpoints.latest,
            monotonic_ms,
            section.round_ms,
        )
        state.checkpoints.show_by(publication)
        counter = metrics.counter("capsign.witness.answers")
        started_ms = now_ms()
        metrics.gauge(
            "capsign.witness.behind",
            lambda: publication.behind_s(state.store.control().tree_size, now_ms(), started_ms),
        )
        log = WitnessedLog(
            state.checkpoints.keys.verifiers, state.store, state.checkpoints.hold_against
        )
        context = _context(section)
        for url, some in sorted(_by_url(policy).items()):
            self._asking.append(
                Asking(
                    ", ".join(one.name for one in some),
                    WitnessClient(url, section.timeout_ms / 1000, context),
                    [one.key for one in some],
                    log,
                    publication,
                    time.monotonic,
                    lambda outcome: counter.add(str(outcome)),
                )
            )

    @property
    def demanded(self) -> bool:
        """Whether any witness must have cosigned a checkpoint before it is shown."""
        return self._publication is not None and self._publication.demands

    def hold_against(self) -> None:
        """Ask all witnesses at once what they hold of this log. Raises FailureError LOG_ROLLED_BACK
        if one holds a tree of ours that the store does not extend. One that does not answer is
        logged.
        """
        if not self._asking:
            return
        with ThreadPoolExecutor(len(self._asking), "witnesses") as pool:
            for _ in pool.map(_remembered, self._asking):
                pass

    def tickers(self) -> list[Ticker]:
        """One for each witness: who is slow keeps nobody else waiting."""
        return [
            Ticker(f"witness.{number}", self._every_s, one.look)
            for number, one in enumerate(self._asking)
        ]


def _remembered(one: Asking) -> None:
    try:
        one.remembered()
    except NoAnswerError as error:
        logs.warning("witness.silent", witness=one.names, why=str(error))
    finally:
        one.close()  # its connection belongs to this thread


def _policy(section: Witnesses, own_keys: list[str]) -> TlogPolicy:
    try:
        policy = parse_policy(section.policy.read_bytes())
    except PolicyError as error:
        raise settings.SettingsError(
            f"The file of `{KEY}` is not good. {error}.", key=KEY
        ) from None
    if policy.logs and not any(log.key.text() in own_keys for log in policy.logs):
        raise settings.SettingsError(
            f"The file of `{KEY}` trusts logs, and this one is not among them. Add a line for it: "
            f"log {own_keys[0]}",
            key=KEY,
        )
    asked = _by_url(policy)
    try:
        policy.demand_quorum([one.name for some in asked.values() for one in some])
    except QuorumError as error:
        raise settings.SettingsError(
            f"The quorum of `{KEY}` can never be reached: {error}. Give those a URL.", key=KEY
        ) from None
    return policy


def _by_url(policy: TlogPolicy) -> dict[str, list[Witness]]:
    """The witnesses that can be asked. One that has several keys is asked once for all."""
    found: dict[str, list[Witness]] = {}
    for one in policy.witnesses.values():
        if one.url:
            parts = urlsplit(one.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
                raise settings.SettingsError(
                    f"The URL of the witness {one.name} in the file of `{KEY}` is not "
                    "https://host/prefix, or http for one that is near.",
                    key=KEY,
                )
            found.setdefault(one.url.rstrip("/"), []).append(one)
    return found


def _context(section: Witnesses) -> ssl.SSLContext:
    if section.ca_file is None:
        return tls_trust.of_the_system()
    try:
        return tls_trust.context(b"".join(pem.authorities(section.ca_file.read_bytes())))
    except ValueError as error:
        raise settings.SettingsError(
            f"The file of `log.witnesses.ca_file` is not good: {error}.",
            key="log.witnesses.ca_file",
        ) from None
