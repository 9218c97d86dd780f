"""What an image is built from: its version, the digest of its inputs, and the commit that last
touched one of them.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from capsign_wire import __version__

from capsign_images import content, places
from capsign_images.catalogue import Image


@dataclass(frozen=True)
class Source:
    version: str
    revision: str
    """A commit, with `-dirty` when inputs differ from it; empty outside of a git work tree."""
    epoch: int
    """The image's date: that commit's time, seconds since 1970; SOURCE_DATE_EPOCH overrides it."""
    digest: str
    """SHA-256 over all inputs but the base image."""


def of(image: Image) -> Source:
    paths = _inputs(image)
    revision, _, time = _git("log", "-1", "--format=%H %ct", "--", *paths).partition(" ")
    if revision and _git("status", "--porcelain", "--", *paths):
        revision += "-dirty"
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or time or 0)
    digest = content.digest(places.REPOSITORY, paths, __version__)
    return Source(__version__, revision, epoch, digest)


def _inputs(image: Image) -> list[str]:
    return [
        *image.packages,
        *(path for path, _ in image.files),
        *(f"requirements/{lock}" for lock in image.locks),
        "requirements/images.lock",
        f"k8s/images/{image.name}.Containerfile",
        "k8s/images/finish.py",
        "k8s/images/capsign_images",
    ]


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(places.REPOSITORY), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""
