"""One cluster for the session; a namespace for each test; when a test fails, what the cluster has
to say.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.cluster.fleet import SHOP, SYSTEM, Fleet
from system.cluster.kit import manifests
from system.cluster.kit.cluster import Cluster

REPOSITORY = Path(__file__).parents[3]
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kube)
            # bounds are for what hangs; a busy machine is only slow
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def image_archives() -> list[Path]:
    """What `make images` made, or the archives in CAPSIGN_IMAGES."""
    place = Path(os.environ.get("CAPSIGN_IMAGES") or REPOSITORY / "build" / "images")
    found = sorted(place.glob("*.tar"))
    assert found, f"no image archives in {place}: run `make images`"
    return found


@pytest.fixture(scope="session")
def cluster(image_archives) -> Iterator[Cluster]:
    with Cluster() as running:
        running.import_images(*image_archives)
        yield running


@pytest.fixture(scope="session")
def image(cluster) -> str:
    """An image with Python and the `capsign` client: what a developer's application would be built
    on.
    """
    listed = cluster.on_node("ctr", "--namespace=k8s.io", "images", "ls", "--quiet").split()
    return next(name for name in listed if "capsign-adapter:" in name)


@pytest.fixture(scope="session")
def fleet(cluster, image) -> Fleet:
    """The chart, installed once; every scenario leaves it as it was."""
    installed = Fleet(cluster, image, exporting=True)
    try:
        # The size that the chart before had, said once: an upgrade that asked for another would be
        # refused by this storage class.
        installed.install(adapter={"persistence": {"size": "1Gi"}})
    except BaseException:
        print(cluster.tell(SYSTEM))
        raise
    return installed


@pytest.fixture
def namespace(cluster, request) -> Iterator[str]:
    """A namespace of its own for the test, under Pod Security `restricted`."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    name = f"{words[:40].rstrip('-')}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl.create(manifests.namespace(name))
    cluster.kubectl(
        "wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=180s"
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    cluster = item.funcargs.get("cluster") if hasattr(item, "funcargs") else None
    if report.failed and cluster is not None:
        namespaces = [item.funcargs["namespace"]] if "namespace" in item.funcargs else []
        namespaces += [SHOP, SYSTEM] if "fleet" in item.funcargs else []
        report.sections.append(("the cluster", cluster.tell(*namespaces)))
    return report
