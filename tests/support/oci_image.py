"""An OCI archive, read without the tool that made it: its configuration, and its root file system
unpacked.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any


class OciImage:
    """One image of an archive (OCI image-spec 1.0: index, manifest, configuration, gzipped
    layers).
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        with tarfile.open(archive) as tar:
            (self.entry,) = _json(tar, "index.json")["manifests"]
            self.manifest = _json(tar, _blob(self.entry))
            self.configuration = _json(tar, _blob(self.manifest["config"]))

    @property
    def layers(self) -> list[str]:
        """Digests of the layers, uncompressed, lowest first: equal exactly when the files are."""
        return list(self.configuration["rootfs"]["diff_ids"])

    def unpack(self, root: Path) -> None:
        """Lays the layers over one another, with their owners and modes. No layer of ours takes a
        file away.
        """
        with tarfile.open(self.archive) as tar:
            for layer in self.manifest["layers"]:
                file = tar.extractfile(_blob(layer))
                assert file is not None
                with tarfile.open(fileobj=file, mode="r:gz") as files:
                    members = files.getmembers()
                    assert not [
                        member.name
                        for member in members
                        if Path(member.name).name.startswith(".wh.")
                    ]
                    # As an attribute: Pythons without extraction filters (3.11 up to 3.11.3) trust
                    # what they unpack anyway.
                    files.extraction_filter = lambda member, _: member
                    files.extractall(root, members, numeric_owner=True)  # noqa: S202 - our own build


def _blob(descriptor: dict[str, Any]) -> str:
    return "blobs/" + descriptor["digest"].replace(":", "/")


def _json(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    assert file is not None
    return json.load(file)
