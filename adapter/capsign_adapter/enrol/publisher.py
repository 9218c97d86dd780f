"""Keeps the trust bundle in a ConfigMap, from which the injector gives it to pods: what an agent
trusts at first.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from typing import Protocol

from capsign_wire import logs
from capsign_wire.settings import SettingsError

from capsign_adapter.enrol.authority import Bundle
from capsign_adapter.enrol.cluster import ConfigMap

KEY = "bundle.pem"
SEQUENCE = "capsign.dev/trust-bundle-sequence"
"""Annotation: the sequence of the bundle that is there."""

ATTEMPTS = 3
"""How often a bundle is written when other replicas write at the same time."""

_NAME = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9.-]{0,252})", re.ASCII)


class Keeping(Protocol):
    """The cluster, as far as it is needed here; see `enrol.cluster.Cluster`."""

    def config_map(self, namespace: str, name: str) -> ConfigMap | None: ...

    def write_config_map(
        self,
        namespace: str,
        name: str,
        data: dict[str, str],
        annotations: dict[str, str],
        version: str,
    ) -> bool: ...


class Bundling(Protocol):
    """The authority, as far as it is needed here."""

    def refresh(self) -> object: ...

    def bundle(self) -> Bundle: ...


class BundlePublisher:
    """Call `publish` every so often, from one thread: it looks, and writes what is missing or was
    changed by hand.
    """

    def __init__(self, cluster: Keeping, authority: Bundling, config_map: str) -> None:
        """`config_map` is "namespace/name"; raises SettingsError for anything else."""
        self._cluster = cluster
        self._authority = authority
        named = _NAME.fullmatch(config_map)
        if named is None:
            sentence = "The key `identity.kubernetes.bundle_config_map` is not namespace/name."
            raise SettingsError(sentence, key="identity.kubernetes.bundle_config_map")
        self._namespace, self._name = named.groups()

    def publish(self) -> bool:
        """Whether it wrote. Raises FailureError CLUSTER_UNAVAILABLE, and what the store raises.

        First what is published, then what the store holds: whatever another replica has published
        was in the store before. So this replica cannot lag behind what it found, and whatever is
        not what it has now is older or not ours.
        """
        for _ in range(ATTEMPTS):
            found = self._cluster.config_map(self._namespace, self._name)
            self._authority.refresh()
            bundle = self._authority.bundle()
            if not wants_writing(bundle, found):
                return False
            data, annotations = {KEY: pem_of(bundle.authorities)}, {SEQUENCE: str(bundle.sequence)}
            if self._cluster.write_config_map(
                self._namespace, self._name, data, annotations, found.version if found else ""
            ):
                logs.event(
                    "bundle.published",
                    sequence=bundle.sequence,
                    authorities=len(bundle.authorities),
                )
                return True
        return False


def pem_of(certificates: Iterable[bytes]) -> str:
    """PEM of certificates in DER, one after the other."""
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates))


def wants_writing(ours: Bundle, found: ConfigMap | None) -> bool:
    """Whether ours should stand there instead."""
    return found is None or (found.data.get(KEY), found.annotations.get(SEQUENCE)) != (
        pem_of(ours.authorities),
        str(ours.sequence),
    )
