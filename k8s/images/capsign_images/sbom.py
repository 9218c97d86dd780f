"""A software bill of materials, CycloneDX 1.6 in JSON: a function of what is installed, so that
equal images have equal bills.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from capsign_images import catalogue
from capsign_images.catalogue import Image
from capsign_images.inventory import Installed


class SbomError(Exception):
    """A bill that does not follow the CycloneDX schema: an error in this module or in a package's
    metadata.
    """


def bill(
    image: Image, version: str, epoch: int, content: str, installed: Sequence[Installed]
) -> str:
    """The bill of an image as text. `content` is the digest of what it was built from; `epoch`,
    seconds since 1970, its date.
    """
    subject = Component(
        name=image.title,
        version=version,
        type=ComponentType.CONTAINER,
        bom_ref=f"{image.title}@{version}",
        description=image.description,
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content)],
    )
    components = {(each.kind, each.name): _component(each) for each in installed}
    bom = Bom(
        components=components.values(), serial_number=_serial(image, version, content, installed)
    )
    bom.metadata.component = subject
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.register_dependency(subject, components.values())
    for each in installed:
        bom.register_dependency(
            components[each.kind, each.name], [components[each.kind, name] for name in each.needs]
        )
    text = str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if wrong is not None:
        raise SbomError(f"The bill of {image.title} is not valid: {wrong}")
    return text


def _component(package: Installed) -> Component:
    if package.kind == "deb":
        qualifiers = {"arch": package.architecture, "distro": f"debian-{catalogue.SUITE}"}
        url = PackageURL("deb", "debian", package.name, package.version, qualifiers)
    else:
        url = PackageURL(package.kind, None, package.name, package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        bom_ref=url.to_string(),
        purl=url,
        licenses=[LicenseFactory().make_from_string(package.licence)] if package.licence else (),
    )


def _serial(image: Image, version: str, content: str, installed: Sequence[Installed]) -> uuid.UUID:
    facts = [
        f"{image.title} {version} {content}",
        *sorted(f"{each.kind} {each.name} {each.version}" for each in installed),
    ]
    return uuid.UUID(bytes=hashlib.sha256("\n".join(facts).encode()).digest()[:16], version=4)
