"""A second installation beside the first: two adapters on one PostgreSQL and one token, and pods
that were injected offline.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import helm_python
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import open_store
from capsign_evidence.leaf_reader import Entry
from support.ca import Authority
from support.postgres import PostgresServer
from system.cluster.fleet import (
    CHART,
    HERE,
    RELEASE,
    SYSTEM,
    Fleet,
    account,
    config_map,
    entries_of,
)
from system.cluster.kit import manifests
from system.cluster.kit.cluster import Cluster
from system.cluster.kit.door import Door
from system.cluster.kit.layout import NODE_ADDRESS

NAMESPACE = "second-system"
TILL = "till"
CAPSIGN = Path(sys.executable).with_name("capsign")
POSTGRES_PORT = 5432


class Replicas:
    """PostgreSQL runs on the machine, where the distribution has it; pods reach it as the Service
    `postgres`, over TLS.
    """

    def __init__(self, fleet: Fleet) -> None:
        self.cluster: Cluster = fleet.cluster
        self.kubectl = fleet.kubectl
        self.developer = fleet.cluster.speaking_as("admin", "system:masters", namespace=TILL)
        self.image = fleet.image
        self._first = fleet
        self._postgres = PostgresServer()
        self._url = self._postgres.new_database()
        self._authority = Authority("postgres")
        self._serve_tls()
        self._door = Door(
            fleet.cluster.listen_inside(POSTGRES_PORT), ("127.0.0.1", self._postgres.port)
        )

    def _serve_tls(self) -> None:
        served = self._authority.issue(dns=(f"postgres.{NAMESPACE}.svc",))
        data = self._postgres.directory / "data"
        owner = data.stat()
        for path in served.write(data, "tls"):
            os.chown(path, owner.st_uid, owner.st_gid)
        settings = {"ssl": "on", "ssl_cert_file": "tls.pem", "ssl_key_file": "tls.key"}
        with self._postgres.connect() as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")

    def install(self) -> None:
        self.kubectl.create(manifests.namespace(NAMESPACE), manifests.namespace(TILL))
        password = self._postgres.password_file_for_clients.read_text()
        self.kubectl.create(
            account("ledger", TILL),
            secret(
                "database", {"password": password, "ca.crt": self._authority.certificate.decode()}
            ),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "postgres", "namespace": NAMESPACE},
                "spec": {"ports": [{"port": POSTGRES_PORT}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": "postgres",
                    "namespace": NAMESPACE,
                    "labels": {"kubernetes.io/service-name": "postgres"},
                },
                "addressType": "IPv4",
                "ports": [{"port": POSTGRES_PORT}],
                "endpoints": [{"addresses": [NODE_ADDRESS]}],
            },
        )
        database = self._url.partition("/capsign_")[2].partition("?")[0]
        host = f"postgres.{NAMESPACE}.svc:{POSTGRES_PORT}/capsign_{database}"
        trust = "sslmode=verify-full&sslrootcert=/etc/capsign/postgresql/ca.crt"
        values = {
            "policy": {"document": (HERE / "policy.yaml").read_text()},
            "adapter": {
                "replicas": 2,
                "preStopSeconds": 3,
                "drainSeconds": 5,
                "identity": {"svidTtlSeconds": 60, "propagationSeconds": 5},
                "persistence": {"accessModes": ["ReadWriteMany"]},
                "store": {
                    "type": "postgresql",
                    "postgresql": {
                        "url": f"postgresql://{self._postgres.user}@{host}?{trust}",
                        "passwordSecret": {"name": "database"},
                        "caSecret": {"name": "database"},
                    },
                },
            },
            "injector": {"enabled": False},
            "admissionPolicy": {"enabled": False},
            "test": {"enabled": False},
        }
        helm = helm_python.Config(kubeconfig_path=self.kubectl.kubeconfig, namespace=NAMESPACE)
        helm.install(CHART, RELEASE, values, wait="watcher", timeout=360)
        self.wait_ready()

    def wait_ready(self) -> None:
        self.kubectl(
            "rollout",
            "status",
            "deployment/capsign-adapter",
            f"--namespace={NAMESPACE}",
            "--timeout=240s",
            timeout=250,
        )

    def adapters(self) -> list[str]:
        pods = self.kubectl.get("pod", "", NAMESPACE, **{"app.kubernetes.io/component": "adapter"})[
            "items"
        ]
        return [
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        ]

    def injected(self, thing: dict[str, Any]) -> dict[str, Any]:
        """By `capsign inject`, with this installation's addresses and authority, and without the
        label: no webhook is asked.
        """
        settings = self.kubectl.get("configmap", "capsign-injector", SYSTEM)["data"][
            "settings.yaml"
        ]
        bundle = self.kubectl.get("configmap", "capsign-trust-bundle", NAMESPACE)["data"][
            "bundle.pem"
        ]
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "settings.yaml").write_text(settings.replace(SYSTEM, NAMESPACE))
            (Path(scratch) / "bundle.pem").write_text(bundle)
            where = [f"--settings={scratch}/settings.yaml", f"--bundle={scratch}/bundle.pem"]
            command = [CAPSIGN, "inject", "--filename=-", *where, "--output=json"]
            done = subprocess.run(command, input=json.dumps(thing), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        del made["spec"]["template"]["metadata"]["labels"]["capsign.dev/inject"]
        return made

    @contextmanager
    def store(self) -> Iterator[Store]:
        opened = open_store(self._url, password_file=self._postgres.password_file_for_clients)
        try:
            yield opened
        finally:
            opened.close()

    def entries(self) -> list[Entry]:
        with self.store() as store:
            return entries_of(store)

    def close(self) -> None:
        self.kubectl("delete", "namespace", NAMESPACE, TILL, "--wait=false")
        self._door.close()
        self._postgres.close()


def secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {**config_map(name, NAMESPACE, {}), "kind": "Secret", "stringData": data}
