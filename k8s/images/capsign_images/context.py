"""The build context of an image: a folder with what may get in, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from capsign_images import content, places, wheels
from capsign_images.catalogue import Image

LAUNCHER = '''#!/usr/bin/python3 -ISB
"""Isolated: no user site, no PYTHON* from the environment, no .pth files; only these two folders
and the standard library.
"""
import sys

sys.path[0:0] = ["/opt/capsign/app", "/opt/capsign/lib"]

from {module} import main

if __name__ == "__main__":
    sys.exit(main())
'''

LAYER_TIME = 315532800
"""All files of a context and of the layers made from it bear 1980-01-01: content alone decides
whether a layer is another one.
"""


def prepare(image: Image, folder: Path, cache: Path) -> None:
    """Makes the context of an image anew."""
    shutil.rmtree(folder, ignore_errors=True)
    content.make_directories(folder)
    for package in image.packages:
        source = places.REPOSITORY / package
        content.copy_tree(source, folder / "app" / source.name)
    files = folder / "files"
    for source_file, destination in image.files:
        content.place(places.REPOSITORY / source_file, files / destination)
    for command, module in image.commands:
        launcher = files / "opt/capsign/bin" / command
        content.make_directories(launcher.parent)
        launcher.write_text(LAUNCHER.format(module=module), encoding="utf-8")
        launcher.chmod(0o755)
    _dependencies(image, folder, cache)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (LAYER_TIME, LAYER_TIME))


def _dependencies(image: Image, folder: Path, cache: Path) -> None:
    locks = [places.REQUIREMENTS / name for name in image.locks]
    (pip,) = wheels.fetch(places.REQUIREMENTS / "images.lock", cache).glob("pip-*.whl")
    content.place(pip, folder / "tools/pip.whl")
    (folder / "tools/requirements.lock").write_bytes(b"".join(one.read_bytes() for one in locks))
    content.place(places.HERE / "finish.py", folder / "tools/finish.py")
    for lock in locks:
        for wheel in wheels.fetch(lock, cache).glob("*.whl"):
            content.place(wheel, folder / "wheels" / wheel.name)
