"""`python -m capsign_images [agent adapter injector]`: what is unchanged is not built again."""

from __future__ import annotations

import argparse
import fcntl
import sys
import time

from capsign_images import places
from capsign_images.base import Base, prepare
from capsign_images.build import build
from capsign_images.buildah import Buildah, BuildahError
from capsign_images.catalogue import IMAGES
from capsign_images.debian import DebianError
from capsign_images.sbom import SbomError
from capsign_images.wheels import WheelsError


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    cache = places.cache()
    cache.mkdir(parents=True, exist_ok=True)
    places.OUTPUT.mkdir(parents=True, exist_ok=True)
    with (cache / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second build waits; it will find most of its work done
        try:
            _build(options, Buildah(cache / "containers"))
        except (BuildahError, DebianError, SbomError, WheelsError) as error:
            sys.stderr.write(f"capsign-images: {error}\n")
            return 1
    return 0


def _build(options: argparse.Namespace, buildah: Buildah) -> None:
    cache = places.cache()
    buildah.trim()
    ours: Base | None = None if options.base else prepare(buildah, cache, refresh=options.refresh)
    for name in options.images or IMAGES:
        image = IMAGES[name]
        base = (options.adapter_base if image.softhsm else "") or options.base
        if ours is not None and not base:
            base = ours.softhsm if image.softhsm else ours.python
        began = time.monotonic()
        built = build(image, base, buildah, places.OUTPUT, cache)
        archive = places.OUTPUT / f"{image.title}.tar"
        said = f"built in {time.monotonic() - began:.0f} s" if built else "is as its sources are"
        sys.stdout.write(
            f"{archive.relative_to(places.REPOSITORY)} "
            f"({archive.stat().st_size / 1e6:.0f} MB) {said}\n"
        )
        sys.stdout.flush()


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="capsign_images", description="Builds capsign's container images with buildah."
    )
    parser.add_argument(
        "images", nargs="*", metavar="image", help=f"{', '.join(IMAGES)} (default: all)"
    )
    parser.add_argument(
        "--base", default="", help="base image with Python; default: made here from Debian packages"
    )
    parser.add_argument(
        "--adapter-base",
        default="",
        help="base image of the adapter, with libsofthsm2 for trials; default: --base",
    )
    parser.add_argument(
        "--refresh", action="store_true", help="make our own base anew, from today's packages"
    )
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.images) - set(IMAGES)):
        parser.error(f"there is no image {unknown[0]}; there are {', '.join(IMAGES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
