"""The base's file system: which packages are in, and what is left of them."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from capsign_images import debian

PYTHON = """\
Package: python3
Version: 3.11.2-1+b1
Pre-Depends: python3-minimal (= 3.11.2-1+b1)
Depends: python3.11 (>= 3.11.2-1~), libpython3-stdlib:any (= 3.11.2-1+b1),
 media-types | mime-support
Description: interactive language
 Depends: on nothing, this is prose
"""


def package(name, *needs):
    return debian.Package(name, f"Package: {name}\n", needs, Path(f"{name}.deb"))


def having(*packages):
    return {each.name: each for each in packages}


def test_dependencies_are_names_without_versions_and_first_of_alternatives():
    assert debian.needs(PYTHON) == (
        "python3-minimal",
        "python3.11",
        "libpython3-stdlib",
        "media-types",
    )


def test_a_field_is_found_at_the_start_of_its_line_only():
    assert debian.field(PYTHON, "Version") == "3.11.2-1+b1"
    assert debian.field(PYTHON, "Homepage") == ""


def test_what_only_a_cut_dependency_needs_is_left_out():
    packages = having(
        package("python3", "libc6", "dpkg"),
        package("libc6"),
        package("dpkg", "tar"),
        package("tar", "libc6"),
    )
    assert debian.reachable(packages, ["python3"]) == {"python3", "libc6"}


def test_a_dependency_that_is_missing_is_named():
    with pytest.raises(debian.DebianError, match="libc6 was not downloaded"):
        debian.reachable(having(package("python3", "libc6")), ["python3"])


def test_circles_end():
    packages = having(package("libc6", "libgcc-s1"), package("libgcc-s1", "libc6"))
    assert debian.reachable(packages, ["libc6"]) == {"libc6", "libgcc-s1"}


@pytest.fixture
def deb(tmp_path):
    """A package with everything that must not get into an image."""
    if shutil.which("dpkg-deb") is None:
        pytest.fail("dpkg-deb is not installed: apt-get install dpkg", pytrace=False)
    tree = tmp_path / "tree"
    for name, mode in (
        ("usr/bin/su", 0o4755),
        ("lib/libx.so", 0o644),
        ("usr/share/doc/x/changelog.gz", 0o644),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
        (tree / name).chmod(mode)
    (tree / "usr/share/doc/x/copyright").write_text("free")
    (tree / "var/lock").mkdir(parents=True)
    (tree / "var/lock").chmod(0o1777)
    (tree / "DEBIAN").mkdir(mode=0o755)
    (tree / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: x\n"
    )
    folder = tmp_path / "debs"
    folder.mkdir()
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(folder / "x.deb")],
        check=True,
        capture_output=True,
    )
    return debian.read(folder)["x"]


def members(archive):
    with tarfile.open(archive) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_nothing_setuid_and_nothing_open_to_all_gets_in(deb, tmp_path):
    debian.write_rootfs([deb], tmp_path / "rootfs.tar", whole=True)
    found = members(tmp_path / "rootfs.tar")
    assert found["usr/bin/su"].mode == 0o755
    assert found["var/lock"].mode == 0o755
    assert found["tmp"].mode == 0o1777
    assert {(member.uid, member.gid, member.uname) for member in found.values()} == {(0, 0, "")}


def test_the_layout_is_merged_and_papers_but_the_licence_are_left_out(deb, tmp_path):
    debian.write_rootfs([deb], tmp_path / "rootfs.tar", whole=True)
    found = members(tmp_path / "rootfs.tar")
    assert found["lib"].linkname == "usr/lib"
    assert "usr/lib/libx.so" in found
    assert "usr/share/doc/x/copyright" in found
    assert "usr/share/doc/x/changelog.gz" not in found


def test_a_package_is_described_where_scanners_look(deb, tmp_path):
    debian.write_rootfs([deb], tmp_path / "rootfs.tar", whole=False)
    found = members(tmp_path / "rootfs.tar")
    assert "var/lib/dpkg/status.d/x" in found
    assert "etc/passwd" not in found  # an addition to a base keeps the base's


def test_the_archive_is_a_function_of_its_packages(deb, tmp_path):
    epochs = {
        debian.write_rootfs([deb], tmp_path / name, whole=True) for name in ("one.tar", "two.tar")
    }
    assert len(epochs) == 1
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
