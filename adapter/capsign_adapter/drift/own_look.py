"""Looks at what only this replica can see: its listeners, its configuration file, its policy file,
what the chart says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.settings import SettingsError

from capsign_adapter import __version__
from capsign_adapter.config import Config, lifetimes
from capsign_adapter.decide import drift
from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_shape import MAX_BYTES
from capsign_adapter.drift import tls_look
from capsign_adapter.drift.settings import settings_of
from capsign_adapter.drift.tls_look import Listener, TlsView
from capsign_adapter.model.drift import Difference
from capsign_adapter.sign.clock import monotonic_ms
from capsign_adapter.store.interfaces.authorities import Authorities

TLS_EVERY_MS = 300_000
"""Between handshakes with a listener that answered before, milliseconds, while nobody asks and the
policy stays: gRPC writes a line about each.
"""

Reload = Callable[[], Config]
"""Reads the configuration again. Raises SettingsError, OSError."""


@dataclass(frozen=True, slots=True)
class Own:
    """What a replica sees of itself: SHA-256 of its policy file in hexadecimal, and differences."""

    policy_file: str
    differences: tuple[Difference, ...]


class OwnLook:
    """Of one replica; for one thread at a time."""

    def __init__(
        self,
        config: Config,
        policy: Callable[[], Policy],
        store: Authorities,
        clock_ms: Callable[[], int] = monotonic_ms,
        look: Callable[[Listener], TlsView | None] = tls_look.look,
    ) -> None:
        self._config = config
        self._running = settings_of(config)
        self._policy = policy
        self._store = store
        self._clock_ms = clock_ms
        self._look = look
        self._tls: dict[str, TlsView] = {}
        self._tls_due_ms = 0
        self._tls_policy = b""
        self.listeners: Callable[[], list[Listener]] = list
        """Those that are served now."""
        self.moves_unwitnessed = False
        """Whether leaves move under a checkpoint that no witness had to cosign."""
        self.reload: Reload | None = None
        """How the configuration file is read again; None: there is none."""

    def __call__(self, thorough: bool) -> Own:
        """Look; `thorough`: also at what was seen a moment ago. Raises what the store raises."""
        found = [*self._of_tls(thorough), *self._of_file()]
        found += [*self._of_chart(), *self._of_authorities()]
        found += drift.of_retention(unwitnessed=self.moves_unwitnessed)
        return Own(self._policy_file(), tuple(found))

    def _policy_file(self) -> str:
        try:
            with self._config.policy.open("rb") as file:
                return hashlib.sha256(file.read(MAX_BYTES + 1)).hexdigest()
        except OSError:
            return ""

    def _of_tls(self, thorough: bool) -> Iterator[Difference]:
        now_ms, listeners, policy = self._clock_ms(), self.listeners(), self._policy()
        if thorough or now_ms >= self._tls_due_ms or policy.digest != self._tls_policy:
            self._tls_due_ms, self._tls_policy = now_ms + TLS_EVERY_MS, policy.digest
        else:
            listeners = [one for one in listeners if one.name not in self._tls]
        for listener in listeners:
            seen = self._look(listener)
            if seen is not None:  # else what was seen before holds: no answer is not absence
                self._tls[listener.name] = seen
        facts = {name: view.facts for name, view in self._tls.items()}
        yield from drift.of_tls(policy, facts)
        identity = self._config.identity
        if identity is not None and self._config.tls.source == "authority":
            lives = {name: view.life_ms for name, view in self._tls.items()}
            yield from drift.of_certificates(lives, lifetimes(identity).svid_ms)

    def _of_file(self) -> Iterator[Difference]:
        if self.reload is None:
            return
        try:
            on_disk = settings_of(self.reload())
        except (SettingsError, OSError, ValueError):
            yield Difference(
                DriftKind.CONFIGURATION, "file", "readable", "a good file", "none that can be read"
            )
            return
        yield from drift.of_settings(self._running, on_disk)

    def _of_chart(self) -> Iterator[Difference]:
        chart = self._config.chart
        if chart is not None:
            stated = drift.Stated(chart.trust_domain, chart.app_version, chart.grants)
            yield from drift.of_chart(self._policy(), stated, __version__)

    def _of_authorities(self) -> Iterator[Difference]:
        identity = self._config.identity
        if identity is not None:
            rows = self._store.authorities()
            yield from drift.of_authorities(rows, lifetimes(identity).authority_ms)
