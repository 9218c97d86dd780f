"""What is installed in the root file system of an image, read from the image itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from capsign_images import catalogue, debian

LIBRARY = "opt/capsign/lib"
DESCRIPTIONS = "var/lib/dpkg/status.d"
STATUS = "var/lib/dpkg/status"
LONGEST_LICENCE = 200
"""Characters; some packages put the whole text where its name belongs."""


@dataclass(frozen=True)
class Installed:
    """One installed package. `needs` are names of packages of the same kind in the same image."""

    kind: str
    """The type of its package URL: `pypi` or `deb`."""
    name: str
    version: str
    licence: str = ""
    architecture: str = ""
    needs: tuple[str, ...] = ()


def read(root: Path) -> list[Installed]:
    """The Python and Debian packages in a root file system, sorted."""
    return sorted(
        [*python(root / LIBRARY), *distribution(root)],
        key=lambda package: (package.kind, package.name),
    )


def python(folder: Path) -> list[Installed]:
    """Python packages by their metadata."""
    found = {
        canonicalize_name(each.name): each for each in metadata.distributions(path=[str(folder)])
    }
    environment = {
        "python_version": catalogue.PYTHON,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "extra": "",
    }
    packages = []
    for name, each in found.items():
        wanted = {
            canonicalize_name(need.name)
            for need in map(Requirement, each.requires or ())
            if _applies(need, environment)
        }
        packages.append(
            Installed(
                "pypi",
                name,
                each.version,
                _licence(each),
                needs=tuple(sorted(wanted & found.keys())),
            )
        )
    return packages


def distribution(root: Path) -> list[Installed]:
    """Debian packages: from our own base's descriptions, else from dpkg's status file."""
    paragraphs = [
        file.read_text(encoding="utf-8") for file in sorted((root / DESCRIPTIONS).glob("*"))
    ]
    if not paragraphs and (root / STATUS).is_file():
        every = (root / STATUS).read_text(encoding="utf-8").split("\n\n")
        paragraphs = [text for text in every if "\nStatus: install ok installed" in text]
    controls = {debian.field(text, "Package"): text for text in paragraphs}
    return [
        Installed(
            "deb",
            name,
            debian.field(text, "Version"),
            architecture=debian.field(text, "Architecture"),
            needs=tuple(sorted(controls.keys() & set(debian.needs(text)))),
        )
        for name, text in controls.items()
    ]


def _applies(need: Requirement, environment: Mapping[str, str]) -> bool:
    return need.marker is None or need.marker.evaluate(dict(environment))


def _licence(package: metadata.Distribution) -> str:
    about = package.metadata
    for given in (*about.get_all("License-Expression", ()), *about.get_all("License", ())):
        text = str(given).strip()
        if text and text != "UNKNOWN" and "\n" not in text and len(text) <= LONGEST_LICENCE:
            return text
    named = [
        re.sub(r"^.* :: ", "", text)
        for text in about.get_all("Classifier") or ()
        if text.startswith("License :: ")
    ]
    return " AND ".join(named) if len(named) == 1 else ""
