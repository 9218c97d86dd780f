"""One file, then the environment, into a typed struct; every refusal names the key and the fix."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from capsign_wire import settings
from hypothesis import given
from hypothesis import strategies as st


class Health(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    listen: str = "127.0.0.1:0"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class Socket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    algorithms: tuple[str, ...] = ()


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    state: Path
    targets: Annotated[list[str], msgspec.Meta(max_length=8)] = []
    health: Health = Health()
    spare: Health | None = None
    sockets: tuple[Socket, ...] = ()
    debug: bool = False
    linger_s: float = 1.5


def load(text: str, directory: Path, **environ: str) -> Process:
    file = directory / "process.toml"
    file.write_text(text)
    return settings.load(file, Process, "CAPSIGN_X", environ)


def test_file_and_environment(tmp_path):
    found = load(
        'state = "/var/s"\n[health]\nport = 1\n[[sockets]]\nname = "app"\n',
        tmp_path,
        CAPSIGN_X_HEALTH_PORT="9",
        CAPSIGN_X_TARGETS="a:1, b:2",
        CAPSIGN_X_DEBUG="true",
        CAPSIGN_X_SPARE_PORT="7",
        CAPSIGN_X_LINGER_S="0.25",
        OTHER="x",
    )
    assert found.state == Path("/var/s")
    assert (found.health.port, found.targets, found.debug, found.linger_s) == (
        9,
        ["a:1", "b:2"],
        True,
        0.25,
    )
    assert found.spare == Health(port=7)
    assert found.sockets == (Socket(name="app"),)


def test_environment_alone(tmp_path):
    found = settings.load(None, Process, "CAPSIGN_X", {"CAPSIGN_X_STATE": str(tmp_path)})
    assert found.state == tmp_path


@pytest.mark.parametrize(
    ("text", "environ", "key", "words"),
    [
        ('state="s"\n[heatlh]\nport=1', {}, "heatlh", "Did you mean `health`?"),
        ('state="s"\n[health]\nprot=1', {}, "health.prot", "Did you mean `port`?"),
        (
            'state="s"\n[[sockets]]\nname="a"\nzz=1',
            {},
            "sockets[0].zz",
            "Known here: algorithms, name",
        ),
        ('state="s"\n[health]\nport=70000', {}, "health.port", "CAPSIGN_X_HEALTH_PORT"),
        ('state="s"\n[health]\nport="1"', {}, "health.port", "expected `int`, got `str`"),
        ("debug=true", {}, "state", "it is missing"),
        ('state="s"\nhealth=3', {}, "health", "expected `object`"),
        ('state="s"\nhealth=3', {"CAPSIGN_X_HEALTH_PORT": "1"}, "health", "must be a section"),
        (
            'state="s"',
            {"CAPSIGN_X_HEALTH_PORT": "many"},
            "health.port",
            "CAPSIGN_X_HEALTH_PORT does not fit",
        ),
        (
            'state="s"',
            {"CAPSIGN_X_HEALTH_PROT": "1"},
            "CAPSIGN_X_HEALTH_PROT",
            "Did you mean `CAPSIGN_X_HEALTH_PORT`?",
        ),
        ('state="s', {}, "", "is not TOML"),
    ],
)
def test_refused_with_key_and_fix(tmp_path, text, environ, key, words):
    with pytest.raises(settings.SettingsError) as caught:
        load(text, tmp_path, **environ)
    assert caught.value.key == key
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "suffix",
    [
        "SERVICE_HOST",
        "SERVICE_PORT",
        "SERVICE_PORT_GRPC",
        "PORT",
        "PORT_443_TCP",
        "PORT_443_TCP_ADDR",
    ],
)
def test_a_service_named_like_us_does_not_break_the_pod(tmp_path, suffix):
    """Kubernetes writes a Service's address into every pod: a Service `capsign-x` gives
    CAPSIGN_X_SERVICE_HOST by itself.
    """
    assert (
        load('state="s"', tmp_path, **{f"CAPSIGN_X_{suffix}": "tcp://10.0.0.1:443"}).health.port
        == 0
    )


def test_file_bounds(tmp_path):
    with pytest.raises(settings.SettingsError, match="larger than"):
        load("#" * (settings.MAX_FILE_BYTES + 1), tmp_path)
    with pytest.raises(settings.SettingsError, match="no such file"):
        settings.load(tmp_path / "absent", Process, "CAPSIGN_X", {})
    (tmp_path / "latin").write_bytes(b"state = '\xe9'")
    with pytest.raises(settings.SettingsError, match="not UTF-8"):
        settings.load(tmp_path / "latin", Process, "CAPSIGN_X", {})


@given(st.text(max_size=40))
def test_any_text_loads_or_is_refused(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(text)
    try:
        settings.load(file, Health, "CAPSIGN_X", {})
    except settings.SettingsError as error:
        named = str(file) in str(error)
        assert named


def secret(directory: Path, data: bytes = b"1234", mode: int = 0o600) -> Path:
    file = directory / "pin"
    file.write_bytes(data)
    file.chmod(mode)
    return file


def test_secret(tmp_path):
    assert settings.read_secret(secret(tmp_path)) == b"1234"
    assert (
        settings.read_secret(secret(tmp_path, b"x" * settings.MAX_SECRET_BYTES))
        == b"x" * settings.MAX_SECRET_BYTES
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
def test_secret_that_others_can_read(tmp_path, mode):
    with pytest.raises(settings.SettingsError, match="chmod 600") as caught:
        settings.read_secret(secret(tmp_path, mode=mode))
    assert "1234" not in str(caught.value)


def test_secret_as_kubernetes_mounts_it(tmp_path):
    """A mounted Secret is a link to `..data`, itself a link to a directory with the date. Refusing
    links refused every Secret.
    """
    (tmp_path / "..2026").mkdir()
    secret(tmp_path / "..2026")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "pin").symlink_to("..data/pin")
    assert settings.read_secret(tmp_path / "pin") == b"1234"


def test_secret_of_a_wrong_kind(tmp_path):
    link = tmp_path / "inner" / "link"
    link.parent.mkdir()
    link.symlink_to(secret(tmp_path))
    with pytest.raises(settings.SettingsError, match="link out of its directory"):
        settings.read_secret(link)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(settings.SettingsError, match="not a regular file"):
        settings.read_secret(tmp_path / "fifo")
    with pytest.raises(settings.SettingsError, match="not a regular file"):
        settings.read_secret(tmp_path)
    with pytest.raises(settings.SettingsError, match="empty"):
        settings.read_secret(secret(tmp_path, b""))
    with pytest.raises(settings.SettingsError, match="larger than"):
        settings.read_secret(secret(tmp_path, b"x" * (settings.MAX_SECRET_BYTES + 1)))
    with pytest.raises(settings.SettingsError, match="no such file"):
        settings.read_secret(tmp_path / "absent")
