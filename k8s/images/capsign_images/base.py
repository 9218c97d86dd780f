"""The base images that are used when none is given: made from Debian packages, kept until a refresh
is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from capsign_images import catalogue, debian, places
from capsign_images.buildah import Buildah


@dataclass(frozen=True)
class Base:
    """Two root file systems: Python's, and what SoftHSM adds to it."""

    digest: str
    """Over the packages and over the code that unpacks them."""
    epoch: int
    """The time of the newest file, seconds since 1970."""

    @property
    def python(self) -> str:
        return f"localhost/capsign-base:{self.digest[:16]}"

    @property
    def softhsm(self) -> str:
        return f"localhost/capsign-base-softhsm:{self.digest[:16]}"


def prepare(buildah: Buildah, cache: Path, *, refresh: bool = False) -> Base:
    """The base images, in the store."""
    folder = cache / "base" / _key()
    base = _archives(folder, refresh=refresh)
    for reference, name, below in (
        (base.python, "base", ""),
        (base.softhsm, "softhsm", base.python),
    ):
        if not buildah.has(reference):
            buildah.build(
                places.HERE / f"{name}.Containerfile", folder / name, reference, base.epoch, below
            )
    return base


def _archives(folder: Path, *, refresh: bool) -> Base:
    about = folder / "about.json"
    if about.exists() and not refresh:
        return Base(**json.loads(about.read_text(encoding="utf-8")))
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("debs", "base", "softhsm"):
        (folder / name).mkdir(parents=True)
    wanted = (*catalogue.BASE_PACKAGES, *catalogue.ADAPTER_PACKAGES)
    debian.download(catalogue.SUITE, wanted, folder / "debs", os.environ.get("DEBIAN_MIRROR", ""))
    packages = debian.read(folder / "debs")
    python = debian.reachable(packages, catalogue.BASE_PACKAGES)
    softhsm = debian.reachable(packages, catalogue.ADAPTER_PACKAGES) - python
    times = [
        debian.write_rootfs(
            [packages[name] for name in sorted(python)], folder / "base/rootfs.tar", whole=True
        ),
        debian.write_rootfs(
            [packages[name] for name in sorted(softhsm)], folder / "softhsm/rootfs.tar", whole=False
        ),
    ]
    hasher = hashlib.sha256(_key().encode())
    for name in ("base/rootfs.tar", "softhsm/rootfs.tar"):
        hasher.update(hashlib.sha256((folder / name).read_bytes()).digest())
    base = Base(hasher.hexdigest(), max(times))
    shutil.rmtree(folder / "debs")
    about.write_text(
        json.dumps(asdict(base)), encoding="utf-8"
    )  # last: without it the folder is made anew
    return base


def _key() -> str:
    """What decides the file system besides the mirror's state."""
    hasher = hashlib.sha256(f"{platform.machine()} {os.environ.get('DEBIAN_MIRROR', '')}".encode())
    for file in (
        "capsign_images/catalogue.py",
        "capsign_images/debian.py",
        "base.Containerfile",
        "softhsm.Containerfile",
    ):
        hasher.update((places.HERE / file).read_bytes())
    return hasher.hexdigest()[:16]
