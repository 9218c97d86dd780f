"""Where a receiver of OTLP is: its URL as the specification of the OTLP exporter reads it. Pure.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit

from capsign_wire.shown_url import without_secrets

from capsign_cli.failures import USAGE, CliError

LOGS_PATH = "/v1/logs"
GRPC_PORT = 4317
_PORTS = {"http": 80, "https": 443}


class Meaning(Enum):
    """What the path of a URL means over HTTP."""

    GIVEN = "given"
    """Of `--endpoint`: where logs go; without one, the usual path."""
    LOGS = "logs"
    """Of OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: where logs go, as it is."""
    BASE = "base"
    """Of OTEL_EXPORTER_OTLP_ENDPOINT: below it each signal has its own."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to, in how many seconds at most, whom to trust, and what to send along."""

    url: str
    timeout_s: float
    ca: Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    meaning: Meaning = Meaning.GIVEN

    def grpc(self) -> tuple[bool, str, int]:
        """Whether it is TLS, host and port, 4317 unless it says another. Raises CliError."""
        scheme, host, port, _ = self._parts()
        return scheme == "https", host, port or GRPC_PORT

    def http(self) -> tuple[bool, str, int, str]:
        """The same and the path, with the port of the URL's scheme unless it says another. Raises
        CliError.
        """
        scheme, host, port, path = self._parts()
        if self.meaning is Meaning.BASE:
            path = f"{path.rstrip('/')}{LOGS_PATH}"
        elif self.meaning is Meaning.GIVEN and not path.strip("/"):
            path = LOGS_PATH
        return scheme == "https", host, port or _PORTS[scheme], path or "/"

    def _parts(self) -> tuple[str, str, int | None, str]:
        try:
            split = urlsplit(self.url)
            port = split.port
        except ValueError:
            raise self._wrong("is no endpoint of OTLP.") from None
        if split.scheme not in _PORTS or not split.hostname or port == 0:
            raise self._wrong("is no endpoint of OTLP.")
        if "@" in split.netloc or split.query or split.fragment:
            raise self._wrong("has more than a host, a port and a path, which is not sent.")
        return split.scheme, split.hostname, port, split.path

    def _wrong(self, what: str) -> CliError:
        advice = "Give http(s)://HOST[:PORT][/PATH]; secrets go into OTEL_EXPORTER_OTLP_HEADERS."
        return CliError(USAGE, "ENDPOINT", f"{without_secrets(self.url)} {what}", advice)
