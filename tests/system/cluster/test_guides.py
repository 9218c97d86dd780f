"""The guides are executed as they are written, on a cluster that has never seen us: what they say
works.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.page_ports import PagePorts
from support.pages import CLUSTER, blocks
from system.cluster.fleet import REPOSITORY
from system.cluster.kit.cluster import KUBECTL, TESTS, Cluster

HELM = f'#!/bin/sh\nPYTHONPATH={TESTS} exec {sys.executable} -m system.cluster.kit.helm "$@"\n'
BLOCK_PATIENCE_S = 480


@pytest.fixture(scope="module")
def shell(image_archives, tmp_path_factory):
    """A shell of somebody who administers a fresh cluster, with kubectl, helm and capsign in the
    PATH.
    """
    tools = tmp_path_factory.mktemp("tools")
    (tools / "helm").write_text(HELM)
    (tools / "helm").chmod(0o755)
    with Cluster() as cluster:
        cluster.import_images(*image_archives)
        paths = os.pathsep.join([str(tools), str(KUBECTL.parent), os.environ["PATH"]])
        environment = {**os.environ, "PATH": paths, "KUBECONFIG": str(cluster.kubectl.kubeconfig)}

        def run(block: str) -> None:
            """Variables that a block exports are there in those that follow, as in a terminal."""
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{block}\nenv -0 > {tools}/environment"],
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BLOCK_PATIENCE_S,
            )
            print(f"{block}\n{done.stdout}{done.stderr}")
            assert done.returncode == 0, (
                f"{block}\n{done.stdout}{done.stderr}\n{cluster.tell('capsign-system', 'shop')}"
            )
            kept = (tools / "environment").read_text().split("\0")
            environment.update(pair.split("=", 1) for pair in kept if "=" in pair)

        yield run


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("guide", CLUSTER)
def test_what_a_guide_says_works(shell, guide):
    ports = PagePorts()
    found = [ports.moved(block.text) for block in blocks(guide) if block.on_cluster]
    assert len(found) >= 4
    for block in found:
        shell(block)
