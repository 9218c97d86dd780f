"""A connection to an adapter over mTLS, and what its failure says about certificates and clocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's address, and the certificate files with which to connect to it."""

    address: str
    ca: Path
    certificate: Path
    private_key: Path
    server_name: str
    log_key: str
    renewal: str = "Get a new one."
    """What to do about a certificate that has ended, as a sentence."""

    @property
    def _target(self) -> str:
        from capsign_wire import addresses

        if self.address.startswith("ipv4:"):  # all of those that `dev up` started
            return self.address
        try:
            return addresses.target(self.address).dial
        except ValueError as error:
            raise CliError(USAGE, "ADDRESS", f"--adapter {error}.", "Name one adapter.") from None

    @contextmanager
    def channel(self) -> Iterator[grpc.Channel]:
        """A channel over mTLS. Raises CliError or OSError if the files cannot be used."""
        import grpc
        from capsign_wire import channels
        from capsign_wire.bounds import MAX_ANSWER_BYTES

        from capsign_cli import credentials

        options: list[tuple[str, Any]] = [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)]
        if self.server_name:
            options.append(("grpc.ssl_target_name_override", self.server_name))
        files = credentials.load(self.ca, self.certificate, self.private_key)
        try:
            with channels.secure(self._target, files, options) as channel:
                yield channel
        except (grpc.RpcError, grpc.FutureTimeoutError) as error:
            ended = (
                credentials.out_of_time(self.certificate, self.ca) if _unreachable(error) else ""
            )
            if ended:
                raise CliError(UNAVAILABLE, "CERTIFICATE_ENDED", ended, self.renewal) from None
            if clock := _clock(error):
                raise CliError(
                    UNAVAILABLE, "CLOCK", clock, "Set the clock that is wrong."
                ) from None
            raise


def _clock(error: Exception) -> str:
    """A sentence if the adapter's certificate is not valid by this machine's clock; empty if that
    is not known.
    """
    said = getattr(error, "details", lambda: "")() or ""
    if "certificate is not yet valid" in said:
        return "The adapter's certificate is not valid yet by this machine's clock."
    return (
        "The adapter's certificate has ended by this machine's clock."
        if "certificate has expired" in said
        else ""
    )


def _unreachable(error: Exception) -> bool:
    import grpc

    return not isinstance(error, grpc.RpcError) or error.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
