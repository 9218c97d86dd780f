"""The built images: what is in them, what is not, and that they start where nothing may be
written.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from capsign_agent.front.engines import ENGINES
from capsign_images import content, places
from capsign_images.buildah import Buildah
from capsign_images.catalogue import IMAGES
from packaging.utils import canonicalize_name

OURS = {
    "capsign",
    "capsign_adapter",
    "capsign_agent",
    "capsign_cli",
    "capsign_evidence",
    "capsign_injector",
    "capsign_wire",
}

ABSENT = {
    "agent": {
        "capsign",
        "capsign_adapter",
        "capsign_cli",
        "capsign_injector",
        "pkcs11",
        "psycopg",
        "psycopg_binary",
        "psycopg_pool",
        "yaml",
        "aiohttp",
    },
    "adapter": {"capsign_agent", "uvloop"},
    "injector": {
        "capsign_agent",
        "capsign_adapter",
        "capsign_cli",
        "capsign_evidence",
        "grpc",
        "google",
        "pkcs11",
        "psycopg",
        "biscuit_auth",
    },
}
"""What an image has no use for."""

TOOLS = (
    "sh",
    "bash",
    "dash",
    "busybox",
    "apt",
    "apt-get",
    "dpkg",
    "pip",
    "pip3",
    "perl",
    "mount",
    "su",
    "tar",
    "curl",
)

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def imported(built, *packages, how=IMPORT_ALL):
    """Imports every module of some packages in the image, by the same switches as the launchers."""
    path = "import sys; sys.path[0:0] = ['/opt/capsign/app', '/opt/capsign/lib']\n"
    return built.sandbox.run("/usr/bin/python3", "-ISB", "-c", path + how, *packages)


def test_the_user_is_a_number_and_not_root(built):
    assert built.config["User"] == "65532:65532"


def test_the_entrypoint_is_the_command_itself(built):
    assert built.config["Entrypoint"] == [f"/opt/capsign/bin/{built.image.title}"]
    assert not built.config.get("Cmd")


def test_environment_holds_no_trace_of_the_build(built):
    names = {entry.partition("=")[0] for entry in built.config["Env"]}
    assert names == {"PATH", "LANG"} | ({"PYTHONPATH"} if built.image.name == "adapter" else set())


def test_labels_say_what_it_is_and_where_it_comes_from(built):
    labels = built.config["Labels"]
    assert labels["org.opencontainers.image.title"] == built.image.title
    assert labels["org.opencontainers.image.description"] == built.image.description
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", labels["org.opencontainers.image.version"])
    assert re.fullmatch(
        r"[0-9a-f]{40}(-dirty)?|unknown", labels["org.opencontainers.image.revision"]
    )
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert "/capsign-base" in labels["org.opencontainers.image.base.name"]
    assert labels["dev.capsign.sbom"] == "/opt/capsign/sbom.cdx.json"
    assert (
        built.archive.manifest["annotations"].items()
        >= {k: v for k, v in labels.items() if "buildah" not in k}.items()
    )


def test_the_archive_bears_the_name_that_the_chart_asks_for(built):
    version = built.config["Labels"]["org.opencontainers.image.version"]
    name = built.archive.entry["annotations"]["org.opencontainers.image.ref.name"]
    assert name == f"localhost/{built.image.title}:{version}"


def test_no_file_gives_privileges_and_none_belongs_to_the_user(built):
    """Nothing setuid, setgid or writable by others (but /tmp): a process in here cannot change what
    it runs.
    """
    for path in built.root.rglob("*"):
        status = path.lstat()
        assert not stat.S_ISCHR(status.st_mode), path
        assert not stat.S_ISBLK(status.st_mode), path
        if stat.S_ISLNK(status.st_mode):
            continue
        assert (status.st_uid, status.st_gid) == (0, 0), path
        assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID), path
        if status.st_mode & stat.S_IWOTH:
            assert str(path.relative_to(built.root)) in {"tmp", "var/tmp"}, path


def test_no_shell_and_no_package_manager(built):
    present = {
        tool
        for tool in TOOLS
        for folder in ("usr/bin", "usr/sbin", "usr/local/bin")
        if (built.root / folder / tool).exists()
    }
    assert present == set()


def test_only_its_own_packages_are_in(built):
    own = {Path(package).name for package in built.image.packages}
    assert {path.name for path in (built.root / "opt/capsign/app").iterdir()} == own
    assert own < OURS
    folders = [
        built.root / place
        for place in ("opt/capsign/app", "opt/capsign/lib", "usr/lib/python3/dist-packages")
    ]
    present = {
        path.name.partition(".")[0]
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
    }
    assert ABSENT[built.image.name] & present == set()


def test_only_the_adapter_has_a_token_library(every_built):
    having = {
        name for name, built in every_built.items() if list(built.root.rglob("libsofthsm2.so"))
    }
    assert having == {"adapter"}


def test_all_its_modules_import(built):
    """Every dependency is there, shared libraries included."""
    own = [Path(package).name for package in built.image.packages]
    if built.image.name == "injector":
        own.remove("capsign_wire")  # it uses what needs no gRPC
    done = imported(built, *own)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agents_image_has_both_engines_of_the_applications_sockets(every_built):
    modules = ", ".join(engine.package for engine in ENGINES.values())
    done = imported(every_built["agent"], how=f"import {modules}")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_standard_library_imports(built):
    """The base was put together without maintainer scripts: every extension module finds its
    libraries.
    """
    folder = built.root / "usr/lib/python3.11/lib-dynload"
    extensions = {path.name.partition(".")[0] for path in folder.glob("*.so")} - {"nis", "_tkinter"}
    assert {"_ssl", "_sqlite3", "_ctypes", "_hashlib"} <= extensions
    done = built.sandbox.run(
        "/usr/bin/python3",
        "-IS",
        "-Wignore",
        "-c",
        f"import {', '.join(sorted(extensions))}, json, tomllib, asyncio",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_source_is_compiled_for_this_python_and_never_checked(built):
    """Without .pyc files the first signature waits half a second; unchecked ones do not mind file
    times (PEP 552).
    """
    asked = built.sandbox.run(
        "/usr/bin/python3",
        "-I",
        "-c",
        "import importlib.util as u; print(u.MAGIC_NUMBER.hex(), u.sys.implementation.cache_tag)",
    )
    magic, tag = asked.stdout.split()
    sources = [
        source
        for folder in ("opt/capsign/app", "opt/capsign/lib", "usr/lib/python3.11")
        for source in (built.root / folder).rglob("*.py")
        if "lib2to3/tests/data" not in str(source)
    ]
    assert len(sources) > 500
    for source in sources:
        head = (source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc").read_bytes()[:8]
        assert head[:4].hex() == magic, source
        assert struct.unpack("<I", head[4:])[0] == 0b01, source


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, image in IMAGES.items() for command, _ in image.commands],
)
def test_each_command_starts_on_a_read_only_root(every_built, name, command):
    done = every_built[name].sandbox.run(f"/opt/capsign/bin/{command}", "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.lower().startswith(f"usage: {command}")


@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, image in IMAGES.items() for command, _ in image.commands],
)
def test_each_command_says_its_version(every_built, name, command):
    """`capsign` asked for the metadata of an installation; in an image there is none."""
    done = every_built[name].sandbox.run(f"/opt/capsign/bin/{command}", "--version")
    assert done.returncode == 0, done.stderr
    assert every_built[name].config["Labels"]["org.opencontainers.image.version"] in done.stdout


def test_a_wrong_configuration_is_explained_in_a_sentence(every_built):
    for name in ("agent", "adapter"):
        done = every_built[name].sandbox.run(
            f"/opt/capsign/bin/capsign-{name}", "--config", "/absent.toml", "--check-config"
        )
        assert done.returncode == 2
        assert "/absent.toml" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_probe_runs_as_the_pod_calls_it(every_built):
    probe = [
        "/usr/bin/python3",
        "-I",
        "-S",
        "/opt/capsign/probe.py",
        "/run/capsign/state/health.sock.probe",
    ]
    done = every_built["agent"].sandbox.run(*probe)
    assert done.returncode == 1
    assert done.stdout.startswith("UNREACHABLE")


def test_commands_ignore_what_the_environment_says_to_python(every_built, tmp_path):
    """Who can set a variable of the pod does not choose the code that the agent runs."""
    built = every_built["agent"]
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "argparse.py").write_text("raise SystemExit('taken over')")
    tmp_path.chmod(0o755)
    sandbox = type(built.sandbox)(
        built.root,
        [*built.config["Env"], "PYTHONPATH=/tmp", "PYTHONSTARTUP=/tmp/argparse.py"],
        "65532:65532",
    )
    done = sandbox.run("/opt/capsign/bin/capsign-agent", "--help", writable={evil: "/tmp"})
    assert done.returncode == 0, done.stderr


def test_a_trial_token_is_made_inside_the_adapter_image(every_built, tmp_path):
    """SoftHSM, its template and the PKCS#11 binding fit together, with one writable folder."""
    built = every_built["adapter"]
    tmp_path.chmod(0o755)
    home = tmp_path / "token"
    home.mkdir(mode=0o700)
    subprocess.run(["chown", "65532:65532", str(home)], check=True)
    made = built.sandbox.run(
        "/usr/bin/python3",
        "/opt/capsign/softhsm/init.py",
        "--dir",
        "/var/lib/token",
        "-o",
        "json",
        writable={home: "/var/lib/token"},
    )
    assert made.returncode == 0, made.stderr
    token = json.loads(made.stdout)
    look = f"""
import os; os.environ["SOFTHSM2_CONF"] = {token["conf"]!r}
import pkcs11
token = pkcs11.lib({token["module"]!r}).get_token(token_label={token["label"]!r})
with token.open(rw=True, user_pin=open({token["pin_file"]!r}).read().strip()) as session:
    print(len(session.generate_random(256)))
"""
    done = built.sandbox.run("/usr/bin/python3", "-c", look, writable={home: "/var/lib/token"})
    assert (done.returncode, done.stdout.strip()) == (0, "32"), done.stderr


def test_the_adapter_image_also_serves_as_an_applications(every_built):
    """`python3 -c` finds the client without further settings: for trials and for `helm test`."""
    done = every_built["adapter"].sandbox.run(
        "/usr/bin/python3", "-c", "import capsign; print(capsign.__name__)"
    )
    assert done.stdout.strip() == "capsign", done.stderr


def test_the_bill_lists_what_is_installed_and_nothing_else(built):
    found = {
        f"pypi:{canonicalize_name(each.name)}@{each.version}"
        for each in metadata.distributions(path=[str(built.root / "opt/capsign/lib")])
    }
    for file in (built.root / "var/lib/dpkg/status.d").iterdir():
        fields = dict(
            line.split(": ", 1)
            for line in file.read_text().splitlines()
            if re.match(r"(Package|Version): ", line)
        )
        found.add(f"deb:{fields['Package']}@{fields['Version']}")
    listed = {
        f"{each['purl'][4:].partition('/')[0]}:{each['name']}@{each['version']}"
        for each in built.bill["components"]
    }
    assert listed == found
    assert len([entry for entry in listed if entry.startswith("pypi:")]) > 5
    assert "deb:libssl3" in {entry.partition("@")[0] for entry in listed}


def test_what_is_installed_is_what_the_lock_says(built):
    text = "".join((places.REQUIREMENTS / lock).read_text() for lock in built.image.locks)
    locked = {
        canonicalize_name(name): version
        for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    }
    listed = {
        each["name"]: each["version"]
        for each in built.bill["components"]
        if each["purl"].startswith("pkg:pypi/")
    }
    assert listed == locked


def test_the_bill_beside_the_image_is_the_bill_inside(built):
    assert json.loads((built.root / "opt/capsign/sbom.cdx.json").read_text()) == built.bill
    assert built.bill["metadata"]["component"]["name"] == built.image.title


def test_every_library_belongs_to_a_package_of_the_bill(built):
    """No stray shared object: what is loaded is what the bill names."""
    recorded = {
        (built.root / "opt/capsign/lib" / file).resolve()
        for each in metadata.distributions(path=[str(built.root / "opt/capsign/lib")])
        for file in each.files or ()
    }
    strays = [
        path
        for path in (built.root / "opt/capsign").rglob("*.so*")
        if path.resolve() not in recorded
    ]
    assert strays == []


def test_sizes_are_said(every_built, record_property):
    for name, built in every_built.items():
        unpacked = sum(
            path.lstat().st_size
            for path in built.root.rglob("*")
            if path.is_file() and not path.is_symlink()
        )
        said = (
            f"{built.archive.archive.stat().st_size / 1e6:.0f} MB as an archive, "
            f"{unpacked / 1e6:.0f} MB unpacked"
        )
        print(f"capsign-{name}: {said}")
        record_property(f"capsign-{name}", said)
        assert unpacked > 0


def test_one_tree_gives_the_same_bytes_twice(every_built, tmp_path):
    """Layers built anew, with nothing of the first build's left: an auditor who builds a release
    gets its digest.
    """
    tree = tmp_path / "tree"
    image = IMAGES["injector"]
    for path in (*image.packages, "k8s/images", "requirements"):
        content.copy_tree(
            places.REPOSITORY / path, tree / path
        )  # a tree that nobody edits meanwhile
    written = [build_in(tree, tmp_path / f"cache{n}", image.name) for n in range(2)]
    assert written[0] == written[1]
    assert written[0].keys() == {"injector.cdx.json", "injector.digest", "injector.stamp"}


def build_in(tree, cache, name):
    """Builds one image of a tree with an empty store; answers the digests of what was written, the
    archive's own frame aside.
    """
    (cache / "capsign").mkdir(parents=True)
    for kept in ("base", "wheels"):
        (cache / "capsign" / kept).symlink_to(places.cache() / kept)
    environment = {
        "PYTHONPATH": str(tree / "k8s/images"),
        "XDG_CACHE_HOME": str(cache),
        "SOURCE_DATE_EPOCH": "1700000000",
    }
    shutil.rmtree(tree / "build", ignore_errors=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "capsign_images", name], check=True, env=os.environ | environment
        )
        files = [
            path
            for path in (tree / "build/images").iterdir()
            if path.is_file() and path.suffix != ".tar"
        ]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    finally:
        Buildah(cache / "capsign" / "containers").empty()
