"""capsign as a platform team and its developers use it: the release, two namespaces, and what the
adapter has recorded.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import helm_python
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.store.open import open_store
from capsign_evidence.leaf_reader import Entry, IdentityRefused, decode
from capsign_wire.failures import REASONS
from support.ca import Authority
from system.cluster.collector import Collector
from system.cluster.kit import manifests
from system.cluster.kit.cluster import Cluster, Kubectl, until

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
CHART = REPOSITORY / "k8s" / "chart"
SYSTEM = "capsign-system"
RELEASE = "capsign"
SHOP = "shop"
DEVELOPER = "ada"
OPERATORS = "operators"
ACCOUNTS = ("orders", "ledger", "stranger")
INJECT = {"capsign.dev/inject": "true"}
HELM_PATIENCE_S = 360
LONG = datetime.timedelta(hours=12)
"""Longer than all tests together, on a machine as busy as it may be."""


class Fleet:
    """One installation. `developer` is an ordinary user who may edit in `shop` and nowhere else."""

    def __init__(self, cluster: Cluster, image: str, *, exporting: bool = False) -> None:
        """`exporting`: with the chart's export, which sends to `collector`."""
        self.cluster = cluster
        self.image = image
        self.kubectl = cluster.kubectl
        self.helm = helm_python.Config(kubeconfig_path=cluster.kubectl.kubeconfig, namespace=SYSTEM)
        self.developer: Kubectl = cluster.speaking_as(DEVELOPER, namespace=SHOP)
        self.operators = Authority("operators", life=LONG)
        self.collector = Collector(cluster, image, SYSTEM) if exporting else None

    # --- the release ---

    def values(self, **more: Any) -> dict[str, Any]:
        """Trials' values: this policy, short lives so that renewals happen while a test looks."""
        given: dict[str, Any] = {
            "policy": {"document": (HERE / "policy.yaml").read_text()},
            "adapter": {
                "operatorAuthority": {"configMap": OPERATORS},
                "preStopSeconds": 1,
                "drainSeconds": 5,
                "publicKeys": {"enabled": True},
                "identity": {"svidTtlSeconds": 30, "propagationSeconds": 5},
            },
            "agent": {
                "allowHostNetwork": True,
                "profiles": {
                    "default": {"grants": ["orders-jwt"]},
                    "webhooks": {"grants": ["orders-webhook"]},
                    "native": {"grants": ["orders-jwt"], "engine": "native"},
                    "everything": {"grants": []},
                },
            },
            "admissionPolicy": {"exec": True, "tokenRequests": True},
            "injector": {"certificate": {"propagationSeconds": 4, "lookSeconds": 1}},
        }
        if self.collector:
            given["export"] = self.collector.values
        return merged(given, more)

    def install(self, chart: Path = CHART, **more: Any) -> None:
        self.kubectl.create(manifests.namespace(SYSTEM), manifests.namespace(SHOP))
        self.kubectl.create(*(account(name, SHOP) for name in ACCOUNTS), editor(DEVELOPER, SHOP))
        self.kubectl.create(
            config_map(OPERATORS, SYSTEM, {"ca.crt": self.operators.certificate.decode()})
        )
        if self.collector:
            reader = self.operators.issue("spiffe://cluster.local/auditor/test", life=LONG)
            self.collector.start(reader)
        self.helm.install(
            chart,
            RELEASE,
            known_to(chart, self.values(**more)),
            wait="watcher",
            timeout=HELM_PATIENCE_S,
        )
        self.wait_ready()

    def upgrade(self, chart: Path = CHART, **more: Any) -> None:
        self.helm.upgrade(
            chart,
            RELEASE,
            known_to(chart, self.values(**more)),
            wait="watcher",
            timeout=HELM_PATIENCE_S,
        )
        self.wait_ready()

    def rollback(self) -> None:
        self.helm.rollback(RELEASE, wait="watcher", timeout=HELM_PATIENCE_S)
        self.wait_ready()

    def wait_ready(self) -> None:
        for workload in ("statefulset/capsign-adapter", "deployment/capsign-injector"):
            self.kubectl(
                "rollout",
                "status",
                workload,
                f"--namespace={SYSTEM}",
                "--timeout=240s",
                timeout=250,
            )

    def adapter_command(self, *arguments: str) -> str:
        """`capsign-adapter ...` beside the one that serves, as docs/operations/kubernetes.md says
        it.
        """
        command = ["capsign-adapter", "--config", "/etc/capsign/adapter/adapter.toml", *arguments]
        return self.kubectl(
            "exec", "statefulset/capsign-adapter", f"--namespace={SYSTEM}", "--", *command
        )

    # --- what the adapter has recorded ---

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the adapter's store as it is now, taken on the node while the adapter goes
        on.
        """
        claim = self.kubectl.get("persistentvolumeclaim", "capsign-adapter-data", SYSTEM)
        volume = self.kubectl.get("persistentvolume", claim["spec"]["volumeName"])
        original = Path(volume["spec"]["local"]["path"]) / "store" / "capsign.db"
        with tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch) / "copy.db"
            copy.touch(mode=0o600)
            with (
                sqlite3.connect(f"file:{original}?mode=ro", uri=True) as source,
                sqlite3.connect(copy) as target,
            ):
                source.backup(target)
            source.close()
            target.close()
            yield copy

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The same, opened."""
        with self.copy() as copy:
            opened = open_store(f"sqlite://{copy}")
            try:
                yield opened
            finally:
                opened.close()

    def entries(self) -> list[Entry]:
        """Every entry of the evidence log."""
        with self.store() as store:
            return entries_of(store)

    def until_entry(self, fits: Callable[[Entry], bool], what: str) -> Any:
        """The newest entry that fits, as soon as there is one."""
        return until(
            lambda: next((entry for entry in reversed(self.entries()) if fits(entry)), None), what
        )

    # --- what a pod is on its node ---

    def root_of(self, pod: str, container: str, namespace: str = SHOP) -> Path:
        """A running container's file system, as the node's administrator sees it."""
        return self.cluster.outside(self.cluster.process_of(pod, container, namespace)) / "root"


def entries_of(store: Store) -> list[Entry]:
    found: list[Any]
    size, found = store.control().tree_size, []
    while len(found) < size:
        found += store.entries(len(found), 4096)
    return [decode(entry) for entry in found]


def reason_name(entry: Entry) -> str:
    """Why an identity was refused; empty for every other entry."""
    return REASONS[entry.reason].name if isinstance(entry, IdentityRefused) else ""


def config_map(name: str, namespace: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def account(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": namespace},
    }


def editor(user: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": namespace},
        "subjects": [{"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "ClusterRole", "name": "edit", "apiGroup": "rbac.authorization.k8s.io"},
    }


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Helm's way to lay values over values."""
    both = {
        key: merged(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(above[key], dict)
    }
    return json.loads(json.dumps({**below, **above, **both}))


def known_to(chart: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Without what an older chart's schema does not have."""
    return restricted(values, helm_python.Chart.load(chart).values)


def restricted(values: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Keys of a free map (a map that is empty, or profiles by name) are all known; those of a
    profile are the default's.
    """
    kept = {}
    for key, value in values.items():
        if key == "profiles" and key in known:
            usual = known[key]["default"]
            kept[key] = {name: restricted(profile, usual) for name, profile in value.items()}
        elif isinstance(value, dict) and isinstance(known.get(key), dict):
            kept[key] = restricted(value, known[key])
        elif key in known:
            kept[key] = value
    return kept
