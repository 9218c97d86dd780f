"""buildah, with layers and images of our own: what is in the user's store stays out of sight, and
the cache is one folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MOST_IMAGES = 400
"""Images in the store, those between two steps of a build included: a changed source adds about
five, some megabytes.
"""


class BuildahError(Exception):
    """A buildah command that failed, with the end of what it said."""


class Buildah:
    """Commands of buildah on one store. Needs root, or to be run under `buildah unshare`."""

    def __init__(self, store: Path) -> None:
        volatile = (
            Path("/run")
            if os.access("/run", os.W_OK)
            else Path(os.environ.get("XDG_RUNTIME_DIR", store))
        )
        # two stores must not share it
        self._state = volatile / f"capsign-images-{hashlib.sha256(bytes(store)).hexdigest()[:12]}"
        self._command = [
            "buildah",
            "--storage-driver=overlay",
            f"--root={store}",
            f"--runroot={self._state}",
        ]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
        store.mkdir(parents=True, exist_ok=True)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise BuildahError(
                f"buildah {arguments[0]} ended with "
                f"{done.returncode}.\n{(done.stderr or done.stdout)[-3000:]}"
            )
        return done.stdout.strip()

    def trim(self, most: int = MOST_IMAGES) -> None:
        """Empties the store when layers of old builds have piled up; the next build is a cold
        one.
        """
        if len(self.run("images", "--all", "--quiet", "--no-trunc").split()) > most:
            self.empty()

    def empty(self) -> None:
        """Removes every image, and what buildah keeps about them until the next boot."""
        self.run("rmi", "--all", "--force")
        shutil.rmtree(self._state, ignore_errors=True)

    def has(self, reference: str) -> bool:
        """Whether the store has an image of that name."""
        done = subprocess.run(
            [*self._command, "inspect", "--type=image", reference], capture_output=True, check=False
        )
        return done.returncode == 0

    def build(
        self, containerfile: Path, context: Path, reference: str, epoch: int, base: str = ""
    ) -> None:
        """Builds an image; every file of its layers and its history bears the time `epoch`, so that
        content alone decides.
        """
        arguments = [
            "--layers",
            f"--timestamp={epoch}",
            "--network=none",
            f"--file={containerfile}",
            f"--tag={reference}",
        ]
        if base:
            arguments.append(f"--build-arg=BASE={base}")
        self.run("bud", *arguments, str(context))

    @contextmanager
    def container(self, reference: str) -> Iterator[tuple[str, Path]]:
        """A working container of an image: its name, and where its root is mounted."""
        name = self.run("from", "--pull-never", reference)
        try:
            yield name, Path(self.run("mount", name))
        finally:
            self.run("rm", name)

    def finish(
        self,
        container: str,
        files: Mapping[Path, str],
        labels: Mapping[str, str],
        reference: str,
        epoch: int,
    ) -> None:
        """Makes a working container into an image: with further files (source: destination), labels
        and equal annotations.
        """
        for source, destination in files.items():
            self.run("copy", container, str(source), destination)
        each = [f"{name}={value}" for name, value in labels.items()]
        self.run(
            "config",
            *(f"--label={one}" for one in each),
            *(f"--annotation={one}" for one in each),
            container,
        )
        self.run("commit", f"--timestamp={epoch}", "--quiet", container, reference)

    def push(self, reference: str, archive: Path) -> str:
        """Writes an OCI archive, by its new name only when it is whole, and answers the manifest's
        digest.
        """
        part, digest = archive.with_suffix(".part"), archive.with_suffix(".part-digest")
        part.unlink(missing_ok=True)
        self.run(
            "push",
            "--quiet",
            "--format=oci",
            f"--digestfile={digest}",
            reference,
            f"oci-archive:{part}:{reference}",
        )
        part.rename(archive)
        text = digest.read_text(encoding="ascii").strip()
        digest.unlink()
        return text
