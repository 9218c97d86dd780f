"""One image: from its context to an OCI archive, its bill of materials, and a stamp that says what
both were made from.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from capsign_images import context, inventory, places, sbom, source
from capsign_images.buildah import Buildah
from capsign_images.catalogue import Image

BILL = "opt/capsign/sbom.cdx.json"
"""Where the bill is inside the image."""


def build(image: Image, base: str, buildah: Buildah, output: Path, cache: Path) -> bool:
    """Builds the image if what it is made from has changed since; answers whether it did.

    Leaves in `output`: capsign-<name>.tar, <name>.cdx.json, <name>.digest (of the manifest) and
    <name>.stamp.
    """
    made_from = source.of(image)
    stamp = output / f"{image.name}.stamp"
    archive, bill, digest = (
        output / f"{image.title}.tar",
        output / f"{image.name}.cdx.json",
        output / f"{image.name}.digest",
    )
    wanted = hashlib.sha256(f"{made_from} {base}".encode()).hexdigest()
    whole = all(file.exists() for file in (archive, bill, digest, stamp))
    if whole and stamp.read_text(encoding="ascii").strip() == wanted:
        return False
    stamp.unlink(missing_ok=True)  # a build that breaks off leaves no stamp
    reference = f"{image.reference}:{made_from.version}"
    folder = output / "context" / image.name
    context.prepare(image, folder, cache)
    unfinished = f"{image.reference}:unfinished"
    buildah.build(
        places.HERE / f"{image.name}.Containerfile", folder, unfinished, context.LAYER_TIME, base
    )
    with buildah.container(unfinished) as (container, root):
        installed = inventory.read(root)
        text = sbom.bill(image, made_from.version, made_from.epoch, wanted, installed)
        bill.write_text(text, encoding="utf-8")
        bill.chmod(0o644)
        buildah.finish(
            container,
            {bill: f"/{BILL}"},
            labels(image, made_from, base),
            reference,
            made_from.epoch,
        )
    digest.write_text(buildah.push(reference, archive) + "\n", encoding="ascii")
    stamp.write_text(wanted + "\n", encoding="ascii")
    return True


def labels(image: Image, made_from: source.Source, base: str) -> dict[str, str]:
    """The labels of an image, by the OCI image specification's annotation keys."""
    return {
        "org.opencontainers.image.title": image.title,
        "org.opencontainers.image.description": image.description,
        "org.opencontainers.image.version": made_from.version,
        "org.opencontainers.image.revision": made_from.revision or "unknown",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.vendor": "capsign",
        "org.opencontainers.image.base.name": base,
        "dev.capsign.source-digest": made_from.digest,
        "dev.capsign.sbom": f"/{BILL}",
    }
