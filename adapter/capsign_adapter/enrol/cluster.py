"""The requests that the adapter makes to the cluster: review a token, read a pod, read and write
the ConfigMap with the trust bundle.

Only the fields that are needed are read, and strictly; an answer of another form is
CLUSTER_UNAVAILABLE and not a refusal.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import quote

import msgspec
from capsign_wire.kubernetes_api import Answer

from capsign_adapter.decide.enrolment import PodFacts, TokenFacts
from capsign_adapter.enrol.api import Api

POD_NAME = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
"""Keys of `user.extra` for a token that is bound to a pod."""

Shape = TypeVar("Shape")


class _User(msgspec.Struct):
    username: str = ""
    extra: dict[str, list[str]] = {}


class _ReviewStatus(msgspec.Struct):
    authenticated: bool = False
    audiences: list[str] = []
    user: _User = msgspec.field(default_factory=_User)


class _Review(msgspec.Struct, tag="TokenReview", tag_field="kind"):
    status: _ReviewStatus


class _PodMetadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str
    uid: str
    deletion_timestamp: datetime | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    service_account_name: str = ""
    host_network: bool = False


class _PodIp(msgspec.Struct):
    ip: str


class _PodStatus(msgspec.Struct):
    phase: str = ""
    pod_ips: list[_PodIp] = msgspec.field(default_factory=list, name="podIPs")


class _Pod(msgspec.Struct, tag="Pod", tag_field="kind"):
    metadata: _PodMetadata
    spec: _PodSpec
    status: _PodStatus


class _ConfigMapMetadata(msgspec.Struct, rename="camel"):
    resource_version: str
    annotations: dict[str, str] = {}


class _ConfigMap(msgspec.Struct, tag="ConfigMap", tag_field="kind"):
    metadata: _ConfigMapMetadata
    data: dict[str, str] = {}


class _Status(msgspec.Struct, tag="Status", tag_field="kind"):
    reason: str = ""


class ConfigMap(msgspec.Struct, frozen=True):
    """A ConfigMap's data and annotations, and the version that a change is based on."""

    data: dict[str, str]
    annotations: dict[str, str]
    version: str


class Cluster:
    """Safe for any thread. All methods raise FailureError CLUSTER_UNAVAILABLE."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def review(self, token: str, audience: str) -> TokenFacts:
        """Returns the cluster's TokenReview (authentication.k8s.io/v1) of the token."""
        body = msgspec.json.encode(
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [audience]},
            }
        )
        answer = self._api.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        status = self._read(answer, _Review, {200, 201}).status
        extra = status.user.extra
        return TokenFacts(
            authenticated=status.authenticated,
            username=status.user.username,
            audiences=tuple(status.audiences),
            pod_name=_only(extra.get(POD_NAME, [])),
            pod_uid=_only(extra.get(POD_UID, [])),
        )

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        """Returns the pod as it is stored now, or None if the cluster says that there is none."""
        answer = self._api.ask(
            "GET", f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        )
        if self._absent(answer):
            return None
        pod = self._read(answer, _Pod, {200})
        if (pod.metadata.namespace, pod.metadata.name) != (namespace, name):
            raise self._api.garbled("another pod")
        deleted = pod.metadata.deletion_timestamp
        try:
            addresses = tuple(ip_address(each.ip) for each in pod.status.pod_ips)
        except ValueError:
            raise self._api.garbled("pod address") from None
        return PodFacts(
            uid=pod.metadata.uid,
            service_account=pod.spec.service_account_name,
            phase=pod.status.phase,
            addresses=addresses,
            deleted_ms=None if deleted is None else int(deleted.timestamp() * 1000),
            host_network=pod.spec.host_network,
        )

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """Returns the ConfigMap, or None if the cluster says that there is none."""
        answer = self._api.ask("GET", _config_maps(namespace, name))
        if self._absent(answer):
            return None
        found = self._read(answer, _ConfigMap, {200})
        return ConfigMap(found.data, found.metadata.annotations, found.metadata.resource_version)

    def write_config_map(
        self,
        namespace: str,
        name: str,
        data: dict[str, str],
        annotations: dict[str, str],
        version: str,
    ) -> bool:
        """Set these keys and annotations and leave all others; create the ConfigMap if `version` is
        empty. Returns False if it was changed since `version`.
        """
        if version:
            change = {
                "metadata": {"resourceVersion": version, "annotations": annotations},
                "data": data,
            }
            body = msgspec.json.encode(change)
            answer = self._api.ask(
                "PATCH", _config_maps(namespace, name), body, "application/merge-patch+json"
            )
        else:
            made = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
                "data": data,
            }
            answer = self._api.ask("POST", _config_maps(namespace), msgspec.json.encode(made))
        if answer.status == 409 or self._absent(answer):
            return False
        self._read(answer, _ConfigMap, {200, 201})
        return True

    def _absent(self, answer: Answer) -> bool:
        """Whether the API itself says that the object is absent: a proxy on the way may answer 404
        too.
        """
        return answer.status == 404 and self._read(answer, _Status, {404}).reason == "NotFound"

    def _read(self, answer: Answer, kind: type[Shape], statuses: set[int]) -> Shape:
        if answer.status not in statuses:
            raise self._api.garbled(f"status {answer.status}")
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            raise self._api.garbled("answer of another shape") from None


def _only(values: list[str]) -> str:
    return values[0] if len(values) == 1 else ""


def _config_maps(namespace: str, name: str = "") -> str:
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
    return f"{path}/{quote(name, safe='')}" if name else path
