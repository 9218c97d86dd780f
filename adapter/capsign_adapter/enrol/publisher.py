"""Publishes the trust bundle in a ConfigMap. The injector gives it to pods, whose agents trust it
at first.
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
"""Annotation with the sequence of the published bundle."""

ATTEMPTS = 3
"""How often a bundle is written when other replicas write at the same time."""

_NAME = re.compile(r"([a-z0-9][a-z0-9-]{0,62})/([a-z0-9][a-z0-9.-]{0,252})", re.ASCII)


class Keeping(Protocol):
    """What is needed of the cluster; see `enrol.cluster.Cluster`."""

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
    """What is needed of the authority."""

    def refresh(self) -> object: ...

    def bundle(self) -> Bundle: ...


class BundlePublisher:
    """Call `publish` regularly, from one thread: it reads the ConfigMap, and writes what is missing
    or was changed by hand.
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
        """Returns whether it wrote. Raises FailureError CLUSTER_UNAVAILABLE, and what the store
        raises.

        Reads the published bundle first and the store afterwards: what another replica has
        published was in the store before. So this replica's bundle is not older than what it found,
        and a published one that differs is older or was changed by hand.
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
    """Whether the published bundle should be replaced by ours."""
    return found is None or (found.data.get(KEY), found.annotations.get(SEQUENCE)) != (
        pem_of(ours.authorities),
        str(ours.sequence),
    )
