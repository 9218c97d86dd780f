from __future__ import annotations

from pathlib import Path

import pytest
from capsign_agent import config
from capsign_wire.settings import SettingsError

GOOD = """
[upstream]
targets = ["127.0.0.1:7443"]
[identity.files]
ca_file = "/tls/ca.pem"
cert_file = "/tls/cert.pem"
key_file = "/tls/key.pem"
[[sockets]]
name = "app"
path = "/run/capsign/app/agent.sock"
[journal]
dir = "/run/capsign/journal"
[health]
path = "/run/capsign/health/health.sock"
"""


def load(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> config.Config:
    path = tmp_path / "agent.toml"
    path.write_text(text)
    return config.load(path, environ or {})


def test_defaults_are_safe(tmp_path: Path) -> None:
    good = load(tmp_path, GOOD)
    assert good.sockets[0].mode == "0660"
    assert good.sockets[0].directory_mode == "0700"
    assert good.probe_path == Path("/run/capsign/health/health.sock.probe")


def test_the_environment_goes_first(tmp_path: Path) -> None:
    good = load(tmp_path, GOOD, {"CAPSIGN_AGENT_UPSTREAM_TARGETS": "a:1,b:2", "CAPSIGN_AGENT_LIMITS_DRAIN_MS": "5"})
    assert good.upstream.targets == ("a:1", "b:2")
    assert good.limits.drain_ms == 5


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("[journal]", "[journal]\nsize = 3", "journal.size"),
        ("127.0.0.1:7443", "127.0.0.1", "upstream.targets[0]"),
        ('name = "app"', 'name = "App!"', "sockets[0].name"),
        ('name = "app"', 'name = "app"\nmode = "999"', "sockets[0].mode"),
        ('name = "app"', 'name = "app"\ndirectory_mode = "0777"', "sockets[0].directory_mode"),
        ('name = "app"', 'name = "app"\nallowed_uids = [1000]', "sockets[0].allowed_uids"),
        ('name = "app"', 'name = "app"\nnarrow = { algorithms = ["MD5"] }', "sockets[0].narrow.algorithms"),
        ("/run/capsign/app/agent.sock", "relative.sock", "relative.sock"),
        ("/run/capsign/app/agent.sock", "/" + "x" * 107, "/" + "x" * 107),
        ("/run/capsign/app/agent.sock", "/run/capsign/health/health.sock", "/run/capsign/health/health.sock"),
    ],
)
def test_every_fault_names_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert caught.value.key == key
    assert key in str(caught.value)


def test_a_name_is_used_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="used twice"):
        load(tmp_path, GOOD.replace("[journal]", '[[sockets]]\nname = "app"\npath = "/run/x.sock"\n[journal]'))


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="journal"):
        load(tmp_path, GOOD.replace("[journal]", "").replace('dir = "/run/capsign/journal"', ""))
