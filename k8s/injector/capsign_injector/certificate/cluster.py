"""Reads and replaces the two Kubernetes objects that the injector may touch.

Every write states the `resourceVersion` that was read, so it happens only if nobody else has
written meanwhile. Reads state none, and so are linearizable.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from capsign_wire.kubernetes_api import CredentialError, KubernetesApi, NoAnswerError

from capsign_injector import __version__
from capsign_injector.certificate.objects import (
    Secret,
    SecretObject,
    Webhooks,
    WebhooksObject,
)
from capsign_injector.server_settings import Server

MANAGER = "capsign-injector"
"""Field manager under which the API server records our writes."""

RELEASE = "meta.helm.sh/"
"""Prefix of the annotations by which Helm recognises its own objects; without them it would refuse
to install over what we made.
"""

MANAGED_BY = "app.kubernetes.io/managed-by"

ROTATE_ANNOTATION = "capsign.dev/rotate"
"""Annotation on the Secret: a new value requests a new authority."""


class ClusterError(Exception):
    """The API server did not do it, or may not have. The text names the object and what to
    check.
    """


class ConflictError(ClusterError):
    """Somebody else has written meanwhile; read again."""


class AbsentError(ClusterError):
    """The object does not exist."""


Shape = TypeVar("Shape", WebhooksObject, SecretObject)


class Cluster:
    """A client of the API server for these two objects. For one task at a time."""

    def __init__(self, settings: Server, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._api: KubernetesApi | None = None
        self.now = 0
        """The API server's time in its last answer, seconds since 1970."""

    def demand_files(self) -> None:
        """Check the files that a request would need, without making one. Raises ClusterError."""
        try:
            self._connected().read_credentials()
        except CredentialError as error:
            raise _unmounted(error) from None

    async def webhooks(self) -> Webhooks:
        """The webhook configuration. Raises ClusterError."""
        raw, found = await self._call("GET", self._webhooks_path, None, WebhooksObject)
        bundles = (one.client_config.ca_bundle or b"" for one in found.webhooks or ())
        return Webhooks(tuple(bundles), raw)

    async def secret(self) -> Secret:
        """The Secret; one that does not exist is returned as empty. Raises ClusterError."""
        try:
            raw, found = await self._call("GET", self._secret_path, None, SecretObject)
        except AbsentError:
            return Secret({}, "", None)
        rotation = (found.metadata.annotations or {}).get(ROTATE_ANNOTATION, "")
        return Secret(found.data or {}, rotation[:256], raw)

    async def store(self, secret: Secret, data: Mapping[str, bytes], beside: Webhooks) -> None:
        """Replace the Secret's data, or create the Secret, as part of the Helm release of `beside`.
        Raises ConflictError if it has changed since it was read. After any other ClusterError it
        may have been written.
        """
        encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
        if secret.raw is not None:
            await self._call(
                "PUT", self._secret_path, {**secret.raw, "data": encoded}, SecretObject
            )
            return
        release = beside.raw["metadata"]
        # What never changes: of a label that another version of the chart changes we would be the
        # owner, and Helm refused.
        notes = {
            key: value
            for key, value in (release.get("annotations") or {}).items()
            if key.startswith(RELEASE)
        }
        labels = {
            key: value for key, value in (release.get("labels") or {}).items() if key == MANAGED_BY
        }
        about = {"name": self._settings.secret, "labels": labels, "annotations": notes}
        made = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": about,
            "data": encoded,
        }
        await self._call("POST", self._secret_path.rpartition("/")[0], made, SecretObject)

    async def publish(self, webhooks: Webhooks, bundle: bytes) -> None:
        """Make every webhook trust exactly `bundle` (PEM). Raises as `store` does."""
        changed = copy.deepcopy(dict(webhooks.raw))
        for one in changed.get("webhooks") or []:
            one["clientConfig"]["caBundle"] = base64.b64encode(bundle).decode()
        await self._call("PUT", self._webhooks_path, changed, WebhooksObject)

    @property
    def _secret_path(self) -> str:
        return f"/api/v1/namespaces/{self._settings.namespace}/secrets/{self._settings.secret}"

    @property
    def _webhooks_path(self) -> str:
        name = self._settings.webhook_configuration
        return f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, shape: type[Shape]
    ) -> tuple[dict[str, Any], Shape]:
        """The object in the answer, as a whole and as we read it. Raises ClusterError."""
        data = None if body is None else msgspec.json.encode(body)
        query = "" if body is None else f"?fieldManager={MANAGER}"
        try:
            answer = await asyncio.to_thread(self._connected().ask, method, path + query, data)
        except CredentialError as error:
            raise _unmounted(error) from None
        except NoAnswerError as error:
            base = base_url(self._settings, self._environ)
            raise ClusterError(f"The API server at {base} does not answer ({error}).") from None
        if answer.status not in {200, 201}:
            raise _explained(answer.status, method, path)
        try:
            raw = msgspec.json.decode(answer.body, type=dict[str, Any])
            found = msgspec.convert(raw, shape)
            # It is the API servers that verify our certificate, so their clock counts.
            self.now = int(parsedate_to_datetime(answer.date).timestamp())
        except (ValueError, TypeError, RecursionError):
            raise ClusterError(
                f"The API server's answer to {method} {path} is not the object that was asked for."
            ) from None
        return raw, found

    def _connected(self) -> KubernetesApi:
        if self._api is None:
            self._api = KubernetesApi(
                base_url(self._settings, self._environ),
                Path(self._settings.token_file),
                Path(self._settings.ca_file),
                user_agent=f"{MANAGER}/{__version__}",
            )
        return self._api


def _unmounted(error: CredentialError) -> ClusterError:
    return ClusterError(
        f"The file {error.path} of the service account cannot be used. Mount its token "
        "(`automountServiceAccountToken: true`)."
    )


def base_url(settings: Server, environ: Mapping[str, str]) -> str:
    """URL of the API server. Raises ClusterError if the settings do not name it and this is
    no pod.
    """
    if settings.api_server:
        return settings.api_server.rstrip("/")
    host, port = (
        environ.get("KUBERNETES_SERVICE_HOST", ""),
        environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host:
        raise ClusterError(
            "This is no pod of a cluster, and `server.api_server` is not set. Set it."
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _explained(status: int, method: str, path: str) -> ClusterError:
    what = path.rpartition("/")[0].rpartition("/")[2] + "/" + path.rpartition("/")[2]
    if status == 409:
        return ConflictError(f"{what} was changed by somebody else meanwhile.")
    if status in {401, 403}:
        verb = {"GET": "get", "PUT": "update", "POST": "create"}[method]
        return ClusterError(
            f"The API server refuses {method} of {what} ({status}). The service account "
            f"needs `{verb}` on it."
        )
    if status == 404:
        return AbsentError(
            f"There is no {what}. `helm upgrade --install` makes it anew, or correct the "
            f"name in the settings."
        )
    return ClusterError(f"The API server answers {status} to {method} of {what}.")
