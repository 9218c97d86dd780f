"""A root file system out of Debian packages, without a shell or a package manager in it.

apt (by mmdebstrap) resolves and downloads what the wanted packages need. Some of those dependencies
serve only maintainer scripts, which never run here, so the way to them is cut; what is then out of
reach is left out. Every package that is in is described in /var/lib/dpkg/status.d/, where scanners
look in images of this kind.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

CUT = frozenset(
    {"awk", "debconf", "debconf-2.0", "dpkg", "ucf", "install-info", "libnsl2", "libtirpc3"}
)
"""Dependencies that are not followed: tools of maintainer scripts; libraries of the module `nis`,
Kerberos among them.
"""

UNUSED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/bug",
)
"""Not content of an image, except the copyright files in usr/share/doc."""

MERGED = ("bin", "sbin", "lib", "lib64")
"""Links into /usr, as on every bookworm system."""

SCRATCH = ("tmp", "var/tmp")
"""Where everybody may write, if the root is not read-only."""

OURS = {
    "etc/passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\n"
    "capsign:x:65532:65532:capsign:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\ncapsign:x:65532:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
"""What maintainer scripts would have written."""


class DebianError(Exception):
    """What could not be had from the distribution, and the next step."""


@dataclass(frozen=True)
class Package:
    name: str
    control: str
    """The package's own description, RFC 822 style."""
    needs: tuple[str, ...]
    """Names of Depends and Pre-Depends; of alternatives the first."""
    file: Path

    @property
    def version(self) -> str:
        return field(self.control, "Version")


def field(control: str, name: str) -> str:
    """One field of a control paragraph; empty where it is absent."""
    found = re.search(rf"^{name}: *(.*(?:\n .*)*)", control, re.MULTILINE)
    return found.group(1) if found else ""


def needs(control: str) -> tuple[str, ...]:
    """What a control paragraph depends on: versions and architectures dropped, alternatives reduced
    to the first.
    """
    clauses = f"{field(control, 'Pre-Depends')},{field(control, 'Depends')}".split(",")
    names = (re.match(r"\s*([a-z0-9][a-z0-9.+-]*)", clause) for clause in clauses)
    return tuple(dict.fromkeys(found.group(1) for found in names if found))


def reachable(packages: Mapping[str, Package], wanted: Iterable[str]) -> frozenset[str]:
    """The wanted packages and what they need, the cut dependencies aside."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name in found or name in CUT:
            continue
        if name not in packages:
            raise DebianError(
                f"The package {name} was not downloaded. Look at its dependencies, or add "
                f"it to CUT in {__file__}."
            )
        found.add(name)
        waiting.extend(packages[name].needs)
    return frozenset(found)


def download(suite: str, wanted: Iterable[str], into: Path, mirror: str = "") -> None:
    """Puts the .deb files of the wanted packages and of all that they need into a folder. apt
    checks the signatures.
    """
    names = ",".join(sorted(wanted))
    command = ["mmdebstrap", "--variant=extract", "--format=null", f"--include={names}"]
    command += [f'--extract-hook=cp "$1"/var/cache/apt/archives/*.deb {into}/', suite, "/dev/null"]
    done = subprocess.run(
        [*command, mirror] if mirror else command, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise DebianError(
            f"mmdebstrap ended with {done.returncode}. Is the distribution's mirror in "
            f"reach?\n{done.stderr[-2000:]}"
        )


def read(folder: Path) -> dict[str, Package]:
    """The packages in a folder by name."""
    found = {}
    for file in sorted(folder.glob("*.deb")):
        control = subprocess.run(
            ["dpkg-deb", "-f", str(file)], capture_output=True, text=True, check=True
        ).stdout
        name = field(control, "Package")
        found[name] = Package(name, control, needs(control), file)
    return found


def write_rootfs(packages: Iterable[Package], archive: Path, *, whole: bool) -> int:
    """Writes a tar archive of the packages' files. `whole`: with the skeleton of a system, not only
    an addition to one.

    Answers the time of the newest file, seconds since 1970: the archive is a function of its
    packages, and so is this.
    """
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "root"
        for name in MERGED:
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
        for package in packages:
            _unpack(package, root)
        _tidy(root)
        if whole:
            _skeleton(root)
        for package in packages:
            described = root / "var/lib/dpkg/status.d" / package.name
            described.parent.mkdir(parents=True, exist_ok=True)
            described.write_text(package.control, encoding="utf-8")
        newest = int(
            max(
                file.lstat().st_mtime
                for file in (root / "usr").rglob("*")
                if file.is_file() and not file.is_symlink()
            )
        )
        _pack(root, archive, newest)
    return newest


def _unpack(package: Package, root: Path) -> None:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package.file)], stdout=subprocess.PIPE
    ) as reader:
        command = [
            "tar",
            "--extract",
            "--keep-directory-symlink",
            "--no-same-owner",
            "--preserve-permissions",
            "-C",
            str(root),
        ]
        subprocess.run(command, stdin=reader.stdout, check=True)
    if reader.returncode:
        raise DebianError(f"dpkg-deb cannot read {package.file}; remove it and build again.")


def _tidy(root: Path) -> None:
    for folder in UNUSED:
        for file in sorted((root / folder).rglob("*"), reverse=True):
            if file.is_dir() and not file.is_symlink():
                if not any(file.iterdir()):
                    file.rmdir()
            elif file.name != "copyright":
                file.unlink()


def _skeleton(root: Path) -> None:
    for name, text in OURS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for name in ("dev", "etc", "proc", "run", "sys"):
        (root / name).mkdir(exist_ok=True)
    for name in SCRATCH:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o1777)


def _pack(root: Path, archive: Path, newest: int) -> None:
    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = min(int(member.mtime), newest)
        if member.name not in SCRATCH:
            member.mode &= 0o755  # nothing is setuid, setgid or open to all
        return member

    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(child.name for child in root.iterdir()):
            tar.add(root / name, arcname=name, filter=plain)  # recursive and sorted
