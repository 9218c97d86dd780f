"""An installation that follows another whose keys are destroyed: no pod gets what only the old one
vouched for.
"""

from __future__ import annotations

import json

import pytest
from system.cluster.fleet import INJECT, SHOP, SYSTEM, Fleet, config_map
from system.cluster.kit import manifests
from system.cluster.kit.cluster import Cluster, until
from system.cluster.kit.layout import NODE

BY_HAND = "by-hand"
CLAIM = "capsign-adapter-data"
BUNDLE = "capsign-trust-bundle"
SIGN = (
    "import capsign\nprint('leaf', capsign.Signer().sign(b'm', purpose='jwt', "
    "algorithm='ES256').leaf_index)\n"
)


@pytest.fixture(scope="module")
def fresh(image_archives):
    """A cluster of its own, on which volumes of one class are made when the test says so."""
    with Cluster() as cluster:
        cluster.import_images(*image_archives)
        listed = cluster.on_node("ctr", "--namespace=k8s.io", "images", "ls", "--quiet").split()
        yield Fleet(cluster, next(name for name in listed if "capsign-adapter:" in name))


def volume(fleet: Fleet, number: int) -> None:
    """The disk arrives."""
    path = fleet.cluster.on_node("mktemp", "--directory").strip()
    here = [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE]}]
    fleet.kubectl.create(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"disk-{number}"},
            "spec": {
                "capacity": {"storage": "32Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": BY_HAND,
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": path},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": here}]}},
            },
        }
    )


def install(fleet: Fleet) -> None:
    values = fleet.values(
        adapter={"persistence": {"storageClass": BY_HAND}}, test={"enabled": False}
    )
    fleet.helm.install("k8s/chart", "capsign", values)


def signs(fleet: Fleet, name: str) -> None:
    spec = manifests.pod_spec(
        manifests.python("app", SIGN, fleet.image), serviceAccountName="orders"
    )
    fleet.kubectl.create(manifests.job(name, SHOP, spec, labels=INJECT))
    fleet.kubectl.wait("condition=complete", f"job/{name}", SHOP, timeout_s=180)


def bundle(fleet: Fleet) -> str:
    return fleet.kubectl.get("configmap", BUNDLE, SYSTEM).get("data", {}).get("bundle.pem", "")


def readiness(fleet: Fleet) -> list[str]:
    """What each replica of the injector says of itself."""
    pods = fleet.kubectl.get("pod", "", SYSTEM, **{"app.kubernetes.io/component": "injector"})[
        "items"
    ]
    said = []
    for one in pods:
        proxied = f"/api/v1/namespaces/{SYSTEM}/pods/{one['metadata']['name']}:8080/proxy/readyz"
        said.append(fleet.cluster.api.ask("GET", proxied)[1])
    return said


@pytest.mark.timeout(900)
def test_no_pod_gets_the_bundle_of_an_installation_that_is_gone(fresh: Fleet) -> None:
    """The clean-up of the guide destroyed the authority and left the bundle; the next injector was
    ready with it until the next adapter had a disk, and the pods that were made meanwhile hung in
    `Init` for ever. On a busy machine the test of the guides failed for the same reason.
    """
    fresh.kubectl.create(manifests.namespace(SYSTEM), manifests.namespace(SHOP))
    fresh.kubectl.create(
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "orders", "namespace": SHOP},
        }
    )
    fresh.kubectl.create(
        config_map("operators", SYSTEM, {"ca.crt": fresh.operators.certificate.decode()})
    )
    install(fresh)
    volume(fresh, 1)
    fresh.wait_ready()
    signs(fresh, "before")
    old = bundle(fresh)

    fresh.helm.uninstall("capsign", wait="watcher", timeout=120)
    fresh.kubectl(
        "delete", "persistentvolumeclaim", CLAIM, f"--namespace={SYSTEM}", "--timeout=180s"
    )
    left = fresh.kubectl(
        "get", "configmap,secret,persistentvolumeclaim", f"--namespace={SYSTEM}", "--output=name"
    ).split()
    assert [one for one in left if "capsign" in one] == [], "the clean-up is whole"

    # What an older release left, and what anybody may have put there: the injector must not believe
    # it.
    owned = {"meta.helm.sh/release-name": "capsign", "meta.helm.sh/release-namespace": SYSTEM}
    kept = config_map(BUNDLE, SYSTEM, {"bundle.pem": old})
    kept["metadata"] |= {"annotations": owned, "labels": {"app.kubernetes.io/managed-by": "Helm"}}
    fresh.kubectl.create(kept)
    install(fresh)
    until(
        lambda: (
            len(readiness(fresh)) == 2
            and all("No adapter has confirmed" in one for one in readiness(fresh))
        ),
        "the reason",
    )
    asked = manifests.pod(
        "early", SHOP, manifests.pod_spec(manifests.python("app", SIGN, fresh.image)), labels=INJECT
    )
    words = fresh.kubectl.refused("create", "--dry-run=server", "-f", "-", stdin=json.dumps(asked))
    assert "inject.capsign.dev" in words
    assert bundle(fresh) == old

    volume(fresh, 2)
    fresh.wait_ready()
    assert bundle(fresh) != old
    signs(fresh, "after")
