"""The bill of materials: CycloneDX as its schema wants it, the same for the same image."""

from __future__ import annotations

import json

import pytest
from capsign_images import inventory, sbom
from capsign_images.catalogue import AGENT
from capsign_images.inventory import Installed

OPENSSL = Installed("deb", "libssl3", "3.0.17-1~deb12u2", architecture="amd64", needs=("libc6",))
LIBC = Installed("deb", "libc6", "2.36-9+deb12u10", architecture="amd64")
GRPC = Installed("pypi", "grpcio", "1.85.1", licence="Apache-2.0", needs=("typing-extensions",))
TYPING = Installed("pypi", "typing-extensions", "4.16.0", licence="PSF-2.0")
ALL = [LIBC, OPENSSL, GRPC, TYPING]


def bill(installed, content="ab" * 32):
    return json.loads(sbom.bill(AGENT, "1.2.3", 1_700_000_000, content, installed))


def test_every_package_has_a_url_that_scanners_know():
    assert {each["purl"] for each in bill(ALL)["components"]} == {
        "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-bookworm",
        "pkg:deb/debian/libssl3@3.0.17-1~deb12u2?arch=amd64&distro=debian-bookworm",
        "pkg:pypi/grpcio@1.85.1",
        "pkg:pypi/typing-extensions@4.16.0",
    }


def test_dependencies_are_said():
    needs = {each["ref"]: each.get("dependsOn", []) for each in bill(ALL)["dependencies"]}
    assert needs["pkg:pypi/grpcio@1.85.1"] == ["pkg:pypi/typing-extensions@4.16.0"]
    assert len(needs["capsign-agent@1.2.3"]) == len(ALL)


def test_the_bill_is_a_function_of_the_image():
    assert bill(ALL) == bill(list(reversed(ALL)))
    assert bill(ALL)["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    assert bill(ALL)["serialNumber"] != bill(ALL[2:])["serialNumber"]
    assert bill(ALL)["serialNumber"] != bill(ALL, "cd" * 32)["serialNumber"]


def test_a_bill_against_the_schema_is_refused():
    with pytest.raises(sbom.SbomError, match="'no digest' does not match"):
        bill(ALL, content="no digest")


def test_python_packages_are_read_from_their_metadata(tmp_path):
    about = {
        "One_Package-1.0": "Name: One_Package\nVersion: 1.0\nLicense-Expression: "
        "MIT\nRequires-Dist: "
        "two>=1\n"
        "Requires-Dist: three; sys_platform == 'win32'\nRequires-Dist: four; extra == 'more'\n",
        "two-2.0": "Name: two\nVersion: 2.0\nLicense: a whole\n        text\n"
        "Classifier: License :: OSI Approved :: MIT License\n",
        "three-3.0": "Name: three\nVersion: 3.0\nLicense: UNKNOWN\n",
    }
    for name, text in about.items():
        (tmp_path / f"{name}.dist-info").mkdir()
        (tmp_path / f"{name}.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n" + text)
    assert sorted(inventory.python(tmp_path), key=lambda each: each.name) == [
        Installed("pypi", "one-package", "1.0", "MIT", needs=("two",)),
        Installed("pypi", "three", "3.0"),
        Installed("pypi", "two", "2.0", "MIT License"),
    ]


def test_a_given_base_is_read_by_its_package_managers_records(tmp_path):
    status = tmp_path / inventory.STATUS
    status.parent.mkdir(parents=True)
    status.write_text(
        "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: "
        "2.36\nDepends: libgcc-s1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n"
    )
    assert inventory.distribution(tmp_path) == [
        Installed("deb", "libc6", "2.36", architecture="amd64")
    ]
