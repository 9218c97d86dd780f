"""An image of a few files as an OCI archive, for what needs no image builder.

The format: https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"


def write_image(
    target: Path, name: str, files: Mapping[str, bytes], config: Mapping[str, Any]
) -> None:
    """`files` by absolute path, all executable; `config` as in the image specification (Entrypoint,
    User, Env).
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path, content in files.items():
            add(tar, path.lstrip("/"), content, mode=0o755)
    with tarfile.open(target, "w") as archive:
        layer_at = add_blob(archive, f"{OCI}.layer.v1.tar", layer.getvalue())
        image = {
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [layer_at["digest"]]},
        }
        config_at = add_blob(archive, f"{OCI}.config.v1+json", json.dumps(image).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": config_at,
            "layers": [layer_at],
        }
        manifest_at = add_blob(archive, f"{OCI}.manifest.v1+json", json.dumps(manifest).encode())
        manifest_at["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        }
        index = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.index.v1+json",
            "manifests": [manifest_at],
        }
        add(archive, "index.json", json.dumps(index).encode())
        add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')


def add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def add_blob(archive: tarfile.TarFile, media_type: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    add(archive, f"blobs/sha256/{digest}", content)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
