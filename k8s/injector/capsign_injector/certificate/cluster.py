"""The two Kubernetes objects that the injector may touch, read and replaced over HTTPS.

Every write names the `resourceVersion` that was read, so it happens only if nobody else wrote in
between. Reads name none: those are linearizable. Token and authority are read anew for every
connection, since the kubelet replaces both.
"""

from __future__ import annotations

import base64
import binascii
import copy
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from capsign_wire import pem, tls_trust

from capsign_injector.server_settings import Server

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Largest object taken from the API server."""

TIMEOUT_S = 10.0
"""Longest time for one request."""

MANAGER = "capsign-injector"
"""Name under which the API server notes what we wrote."""

RELEASE = "meta.helm.sh/"
"""Begins the annotations by which Helm knows what is its own: without them it would not install
over what we made.
"""

MANAGED_BY = "app.kubernetes.io/managed-by"

ROTATE_ANNOTATION = "capsign.dev/rotate"
"""On the Secret: a new value asks for a new authority."""


class ClusterError(Exception):
    """The API server did not do it, or may not have. The text says which object, and what to
    check.
    """


class ConflictError(ClusterError):
    """Somebody else wrote in between. Read again."""


class AbsentError(ClusterError):
    """The API server says that there is no such object."""


class _RefusedError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Secret:
    """The Secret as read; without `raw` there is none. `rotation` is what an operator's annotation
    says.
    """

    data: Mapping[str, bytes]
    rotation: str
    raw: Mapping[str, Any] | None

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The webhook configuration as read: PEM that each of its webhooks trusts."""

    bundles: tuple[bytes, ...]
    raw: Mapping[str, Any]


class Cluster:
    """One connection to the API server. Not for more than one task at a time."""

    def __init__(self, session: aiohttp.ClientSession, settings: Server, base: str) -> None:
        self._session = session
        self._settings = settings
        self._base = base
        self.now = 0
        """The API server's clock when it last answered, seconds since 1970."""

    async def webhooks(self) -> Webhooks:
        """Raises ClusterError."""
        raw = await self._call("GET", self._webhooks_path, None)
        bundles = (
            _bytes(one.get("clientConfig", {}).get("caBundle") or "")
            for one in raw.get("webhooks") or []
        )
        return Webhooks(tuple(bundles), raw)

    async def secret(self) -> Secret:
        """One that somebody deleted is like an empty one: it is made anew. Raises ClusterError."""
        try:
            raw = await self._call("GET", self._secret_path, None)
        except AbsentError:
            return Secret({}, "", None)
        notes = raw["metadata"].get("annotations") or {}
        data = {name: _bytes(text) for name, text in (raw.get("data") or {}).items()}
        return Secret(data, str(notes.get(ROTATE_ANNOTATION, ""))[:256], raw)

    async def store(self, secret: Secret, data: Mapping[str, bytes], beside: Webhooks) -> None:
        """Replace the Secret's data, or make it if there is none, as part of the release that
        `beside` is part of. Raises ConflictError if it changed since it was read; after another
        ClusterError it may be done or not.
        """
        encoded = {name: base64.b64encode(value).decode() for name, value in data.items()}
        if secret.raw is not None:
            await self._call("PUT", self._secret_path, {**secret.raw, "data": encoded})
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
        await self._call("POST", self._secret_path.rpartition("/")[0], made)

    async def publish(self, webhooks: Webhooks, bundle: bytes) -> None:
        """Let every webhook trust exactly `bundle` (PEM). Raises as `store` does."""
        changed = copy.deepcopy(dict(webhooks.raw))
        for one in changed.get("webhooks") or []:
            one["clientConfig"]["caBundle"] = base64.b64encode(bundle).decode()
        await self._call("PUT", self._webhooks_path, changed)

    @property
    def _secret_path(self) -> str:
        return f"/api/v1/namespaces/{self._settings.namespace}/secrets/{self._settings.secret}"

    @property
    def _webhooks_path(self) -> str:
        name = self._settings.webhook_configuration
        return f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}"

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            raw = await self._request(method, path, body)
        except _RefusedError as refusal:
            raise _explained(refusal.status, method, path) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(
                f"The API server at {self._base} does not answer ({type(error).__name__})."
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ClusterError(
                f"The API server's answer to {method} {path} is not the object that was asked for."
            ) from None
        return raw

    async def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        data = None if body is None else msgspec.json.encode(body)
        query = {"fieldManager": MANAGER} if body is not None else None
        async with self._session.request(
            method, self._base + path, params=query, data=data, allow_redirects=False
        ) as answer:
            if answer.status not in {200, 201}:
                raise _RefusedError(answer.status)
            # The whole answer is bounded before it is decoded: the object may hold anything by now.
            text = bytearray()
            async for chunk in answer.content.iter_any():
                text += chunk
                if len(text) > MAX_ANSWER_BYTES:
                    raise ValueError("too large")
            raw: dict[str, Any] = msgspec.json.decode(bytes(text), type=dict[str, Any])
            if not raw["metadata"]["resourceVersion"]:
                raise ValueError("no version: a write could not be conditional")
            # It is the API servers that verify our certificate, so their clock counts and not ours.
            self.now = int(parsedate_to_datetime(answer.headers["Date"]).timestamp())
            return raw


@asynccontextmanager
async def connect(
    settings: Server, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[Cluster]:
    """A connection with the token and the authority that are in their files now. Raises
    ClusterError.
    """
    token, context = _credentials(settings)
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    connector = aiohttp.TCPConnector(ssl=context, limit=1)
    async with aiohttp.ClientSession(
        headers=headers, timeout=timeout, connector=connector
    ) as session:
        yield Cluster(session, settings, base_url(settings, environ))


def demand_files(settings: Server, environ: Mapping[str, str] = os.environ) -> None:
    """Read what a connection would be made with, and make none. Raises ClusterError."""
    base_url(settings, environ)
    _credentials(settings)


def _credentials(settings: Server) -> tuple[str, ssl.SSLContext]:
    try:
        token = Path(settings.token_file).read_text(encoding="ascii").strip()
        if not token:
            raise ValueError("no token")
        authorities = pem.authorities(Path(settings.ca_file).read_bytes())
        return token, tls_trust.context(b"".join(authorities), ssl.TLSVersion.TLSv1_2)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{settings.token_file} or {settings.ca_file} cannot be read ({type(error).__name__}). "
            "Mount the service account's token (`automountServiceAccountToken: true`)."
        ) from None


def base_url(settings: Server, environ: Mapping[str, str]) -> str:
    """Where the API server is. Raises ClusterError outside of a cluster when the settings do not
    say.
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


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
