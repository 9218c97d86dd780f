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
    good = load(
        tmp_path,
        GOOD,
        {"CAPSIGN_AGENT_UPSTREAM_TARGETS": "a:1,b:2", "CAPSIGN_AGENT_LIMITS_DRAIN_MS": "5"},
    )
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
        (
            'name = "app"',
            'name = "app"\nnarrow = { algorithms = ["MD5"] }',
            "sockets[0].narrow.algorithms",
        ),
        ("/run/capsign/app/agent.sock", "relative.sock", "relative.sock"),
        ("/run/capsign/app/agent.sock", "/" + "x" * 107, "/" + "x" * 107),
        (
            "/run/capsign/app/agent.sock",
            "/run/capsign/health/health.sock",
            "/run/capsign/health/health.sock",
        ),
        (
            "/run/capsign/app/agent.sock",
            "//run/capsign/health/health.sock",
            "//run/capsign/health/health.sock",
        ),
        (
            "/run/capsign/app/agent.sock",
            "/run/capsign/a,b/agent.sock",
            "/run/capsign/a,b/agent.sock",
        ),
        ("127.0.0.1:7443", "127.0.0.1:99999", "upstream.targets[0]"),
        ("127.0.0.1:7443", "127.0.0.1:0", "upstream.targets[0]"),
    ],
)
def test_every_fault_names_its_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, GOOD.replace(old, new))
    assert caught.value.key == key
    assert key in str(caught.value)


POD = """
[upstream]
targets = ["capsign-adapter.capsign-system.svc:7443"]
server_name = "capsign-adapter.capsign-system.svc"
[identity]
source = "kubernetes"
[identity.kubernetes]
enrolment_targets = ["capsign-adapter.capsign-system.svc:7444"]
token_file = "/var/run/secrets/capsign/token"
bundle = \"\"\"
-----BEGIN CERTIFICATE-----
\"\"\"
state_dir = "/run/capsign/state/identity"
[[sockets]]
name = "web"
path = "/run/capsign/0/s/agent.sock"
mode = "0666"
directory_mode = "0711"
grants = ["tokens"]
[journal]
dir = "/run/capsign/state/journal"
max_bytes = 8388608
[health]
path = "/run/capsign/state/health.sock"
[telemetry]
log_level = "info"
"""
"""What the injector writes."""


def in_a_pod(text: str, **environ: str) -> config.Config:
    return config.load(None, {"CAPSIGN_AGENT_CONFIG": text, **environ})


def test_in_a_pod_the_settings_are_a_variable() -> None:
    good = in_a_pod(
        POD, CAPSIGN_AGENT_TELEMETRY_LOG_LEVEL="debug", CAPSIGN_AGENT_SERVICE_HOST="10.0.0.1"
    )
    assert good.identity.kubernetes is not None
    assert good.identity.kubernetes.state_dir == Path("/run/capsign/state/identity")
    assert (good.sockets[0].mode, good.telemetry.log_level) == ("0666", "debug")


def test_a_file_that_is_named_goes_before_the_variable(tmp_path: Path) -> None:
    assert (
        load(tmp_path, GOOD, {"CAPSIGN_AGENT_CONFIG": "not even TOML"}).identity.files is not None
    )


def test_without_any_settings_it_says_what_to_give() -> None:
    with pytest.raises(SettingsError, match="CAPSIGN_AGENT_CONFIG"):
        config.load(None, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[upstream", "is not TOML"),
        ("#" * (256 * 1024 + 1), "larger than 262144 bytes"),
        ("#\udcff", "is not UTF-8"),
    ],
)
def test_a_variable_that_is_no_settings_is_named(text: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        in_a_pod(text)
    assert "CAPSIGN_AGENT_CONFIG" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('source = "kubernetes"', 'source = "vault"', "identity.source"),
        ('source = "kubernetes"', 'source = "workload-api"', "identity.workload_api"),
        ('source = "kubernetes"', "", "identity.files"),
        (
            "[identity.kubernetes]",
            '[identity.workload_api]\nsocket = "/s"\n[identity.kubernetes]',
            "identity.workload_api",
        ),
        ("svc:7444", "svc", "identity.kubernetes.enrolment_targets[0]"),
        ('"/run/capsign/state/identity"', '"identity"', "identity.kubernetes.state_dir"),
        ('"/var/run/secrets/capsign/token"', '"token"', "identity.kubernetes.token_file"),
        ("-----BEGIN", "x" * 65536 + "-----BEGIN", "identity.kubernetes.bundle"),
        ("svc:7443", "svc", "upstream.targets[0]"),
        ("server_name", "ca_file", "upstream.ca_file"),
    ],
)
def test_every_fault_of_an_identity_names_its_key(old: str, new: str, key: str) -> None:
    with pytest.raises(SettingsError) as caught:
        in_a_pod(POD.replace(old, new))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('socket = "s"', "socket"),
        ('socket = "/s"\nspiffe_id = "orders"', "spiffe_id"),
        ("", "socket"),
    ],
)
def test_every_fault_of_the_workload_api_names_its_key(line: str, key: str) -> None:
    section = POD[POD.index("[identity]") : POD.index("[[sockets]]")]
    with pytest.raises(SettingsError) as caught:
        in_a_pod(
            POD.replace(
                section, f'[identity]\nsource = "workload-api"\n[identity.workload_api]\n{line}\n'
            )
        )
    assert caught.value.key == f"identity.workload_api.{key}"


def test_a_name_is_used_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="used twice"):
        load(
            tmp_path,
            GOOD.replace("[journal]", '[[sockets]]\nname = "app"\npath = "/run/x.sock"\n[journal]'),
        )


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="journal"):
        load(tmp_path, GOOD.replace("[journal]", "").replace('dir = "/run/capsign/journal"', ""))
