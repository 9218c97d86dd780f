from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from capsign_images import places
from capsign_images.catalogue import IMAGES, Image
from support.oci_image import OciImage
from support.sandbox import Sandbox

PACKAGES = places.REPOSITORY / ".ci" / "kube-packages"


def pytest_collection_modifyitems(items):
    for item in items:
        if "built" in item.fixturenames or "every_built" in item.fixturenames:
            item.add_marker(pytest.mark.system)
            # the first of them waits for a cold build on two busy cores
            item.add_marker(pytest.mark.timeout(1200))


@dataclass(frozen=True)
class Built:
    """An image as it was written, with its root file system unpacked."""

    image: Image
    archive: OciImage
    root: Path
    bill: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        return self.archive.configuration["config"]

    @property
    def sandbox(self) -> Sandbox:
        return Sandbox(self.root, self.config["Env"], self.config["User"])


@pytest.fixture(scope="session")
def every_built(tmp_path_factory) -> dict[str, Built]:
    """The images of this work tree; what is unchanged since the last `make images` is taken as it
    is.
    """
    for command in ([str(PACKAGES)], [sys.executable, "-m", "capsign_images"]):
        environment = os.environ | {"PYTHONPATH": str(places.HERE)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}: {done.stdout}{done.stderr}", pytrace=False)
    return {name: _unpack(image, tmp_path_factory.mktemp(name)) for name, image in IMAGES.items()}


@pytest.fixture(params=sorted(IMAGES))
def built(every_built, request) -> Built:
    """Each image in turn."""
    return every_built[request.param]


def _unpack(image: Image, root: Path) -> Built:
    root.chmod(0o755)
    # pytest's folders are closed to others, and the sandbox's user is another
    for parent in root.parents:
        if (
            parent.stat().st_uid == os.getuid()
            and parent != Path("/")
            and not parent.stat().st_mode & 0o001
        ):
            parent.chmod(parent.stat().st_mode | 0o011)
    archive = OciImage(places.OUTPUT / f"{image.title}.tar")
    archive.unpack(root)
    return Built(
        image, archive, root, json.loads((places.OUTPUT / f"{image.name}.cdx.json").read_text())
    )
