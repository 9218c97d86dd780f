"""The adapter's client of the Kubernetes API. Its errors become typed failures, and are logged once
for each cause.
"""

from __future__ import annotations

from pathlib import Path

from capsign_wire import logs
from capsign_wire.failures import FailureError
from capsign_wire.kubernetes_api import Answer, CredentialError, KubernetesApi, NoAnswerError
from capsign_wire.settings import SettingsError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter import __version__

SECTION = "identity.kubernetes"


class Api:
    """Sends requests to the API server. Safe for any thread."""

    def __init__(self, server: str, token_file: Path, ca_file: Path, seconds: float = 5.0) -> None:
        """`seconds` bounds connecting, and then the rest of a request. Raises SettingsError if
        `server` is not an https address.
        """
        agent = f"capsign-adapter/{__version__}"
        try:
            self._api = KubernetesApi(
                server, token_file, ca_file, user_agent=agent, seconds=seconds
            )
        except ValueError as error:
            key = f"{SECTION}.api_server"
            raise SettingsError(f"The key `{key}` {error}.", key=key) from None
        self._keys = {token_file: f"{SECTION}.token_file", ca_file: f"{SECTION}.ca_file"}
        self._failing = ""

    def demand_files(self) -> None:
        """Read the token and CA files that a request would use, and send none. Raises
        SettingsError.
        """
        try:
            self._api.read_credentials()
        except CredentialError as error:
            key = self._keys[error.path]
            sentence = f"The file {error.path} of `{key}` cannot be used. See that it is mounted."
            raise SettingsError(sentence, key=key) from None

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Returns the server's answer. Raises FailureError CLUSTER_UNAVAILABLE if there is none or
        its status says to try later; the text repeats nothing of the request, which may hold a
        pod's token.
        """
        try:
            answer = self._api.ask(method, path, body, content_type)
        except NoAnswerError as error:
            raise self._unavailable(str(error)) from None
        if answer.status >= 500 or answer.status in {401, 429}:
            raise self._unavailable(f"status {answer.status}")
        if self._failing:
            self._failing = ""
            logs.event("cluster.answers")
        return answer

    def garbled(self, what: str) -> FailureError:
        """Returns the failure for an answer that does not have the documented form."""
        return self._unavailable(what)

    def close(self) -> None:
        """Close the idle connections."""
        self._api.close()

    def _unavailable(self, cause: str) -> FailureError:
        if cause != self._failing:  # once for each cause, not once for each caller
            self._failing = cause
            logs.error("cluster.failing", reason=cause)
        return FailureError(
            failures_pb2.REASON_CLUSTER_UNAVAILABLE,
            "The adapter cannot ask the Kubernetes API now.",
            retry_after_ms=1000,
        )
