"""What `dev up` writes is what adapter, agent and outsiders' tools accept."""

from __future__ import annotations

import datetime
import importlib.resources
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from capsign_adapter.config import Config as AdapterConfig
from capsign_adapter.decide.policy_load import parse_policy
from capsign_agent import config as agent_config
from capsign_cli.dev import layout as layouts
from capsign_cli.dev import prepare
from capsign_cli.dev.ca import DevelopmentCa
from capsign_cli.dev.prepare import CLIENTS
from capsign_cli.failures import CliError
from capsign_wire import settings, sqlite_url, unix_socket
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

TOKEN = {
    "module": "/usr/lib/softhsm/libsofthsm2.so",
    "label": "capsign",
    "pin_file": "/x/capsign.pin",
    "conf": "/x/softhsm2.conf",
}
LISTENER = layouts.Listener("127.0.0.1:1", "127.0.0.1:2")


@pytest.fixture
def ca(tmp_path):
    return DevelopmentCa(tmp_path / "pki")


def test_the_policy_is_good_and_names_our_clients():
    data = (importlib.resources.files("capsign_cli.dev") / "policy.yaml").read_bytes()
    policy = parse_policy(data)
    for name, path in CLIENTS.items():
        identity = f"spiffe://capsign.test{path}"
        assert policy.grants_of(identity) or policy.roles_of(identity), name
    grants = {grant.name for grant in policy.grants_of("spiffe://capsign.test/ns/demo/sa/app")}
    for offered in layouts.CONTAINERS.values():
        assert set(offered) <= grants


def test_the_adapter_reads_its_configuration(tmp_path, ca):
    layout = layouts.Layout(tmp_path / 'a "b"\\c', tmp_path / "run")
    server = ca.issue("adapter", "/adapter", server=True)
    text = layouts.adapter_config(
        layout, LISTENER, server, ca.certificate_file, TOKEN, "sqlite:///x", tmp_path / "password"
    )
    file = tmp_path / "adapter.toml"
    file.write_text(text)
    config = settings.load(file, AdapterConfig, "CAPSIGN_ADAPTER", {})
    assert config.policy == layout.policy
    assert config.token.config == Path("/x/softhsm2.conf")
    assert (config.listen.address, config.listen.health_address) == ("127.0.0.1:1", "127.0.0.1:2")
    assert config.store.password_file == tmp_path / "password"


def test_the_agent_reads_its_configuration(tmp_path, ca):
    layout = layouts.Layout(tmp_path, Path("/tmp/x"))
    file = tmp_path / "agent.toml"
    file.write_text(
        layouts.agent_config(
            layout, [LISTENER, LISTENER], ca.issue("app", "/a"), ca.certificate_file
        )
    )
    config = agent_config.load(file, {})
    assert [one.name for one in config.sockets] == list(layouts.CONTAINERS)
    assert config.upstream.targets == ("127.0.0.1:1", "127.0.0.1:1")


def test_openssl_accepts_the_certificates(ca):
    for identity, purpose in (
        (ca.issue("adapter", "/adapter", server=True), "sslserver"),
        (ca.issue("app", "/a"), "sslclient"),
    ):
        command = [
            "openssl",
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            str(ca.certificate_file),
        ]
        checked = subprocess.run(
            [*command, str(identity.certificate)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_identities_are_kept_and_private_keys_are_private(tmp_path, ca):
    first = ca.issue("app", "/ns/demo/sa/app")
    bytes_before = first.certificate.read_bytes()
    assert (
        DevelopmentCa(tmp_path / "pki").issue("app", "/ns/demo/sa/app").certificate.read_bytes()
        == bytes_before
    )
    for key in (tmp_path / "pki").glob("*.key"):
        assert settings.read_secret(key)
    certificate = x509.load_pem_x509_certificate(bytes_before)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://capsign.test/ns/demo/sa/app"
    ]


def test_listeners_differ():
    found = layouts.free_listeners(8)
    ports = [address for one in found for address in (one.address, one.health)]
    assert len(set(ports)) == 16


def test_listeners_are_where_the_variable_says(monkeypatch):
    monkeypatch.setenv(layouts.PORTS_VARIABLE, "21000-21099")
    (found,) = layouts.free_listeners(1)
    assert 21_000 <= int(found.address.rpartition(":")[2]) <= 21_099


def test_the_agent_serves_with_the_engine_that_the_variable_names(monkeypatch, tmp_path):
    place = layouts.Layout(tmp_path, tmp_path)
    app = DevelopmentCa(tmp_path / "pki").issue("app", "/ns/demo/sa/app")
    plain = layouts.agent_config(place, [], app, tmp_path / "ca.pem")
    monkeypatch.setenv(layouts.ENGINE_VARIABLE, "native")
    named = layouts.agent_config(place, [], app, tmp_path / "ca.pem")
    assert "front" not in tomllib.loads(plain)
    assert tomllib.loads(named)["front"] == {"engine": "native"}


@pytest.mark.parametrize("told", ["21000", "21099-21000", "80-90", "21000-70000", "a-b"])
def test_what_says_no_ports_is_refused(monkeypatch, told):
    monkeypatch.setenv(layouts.PORTS_VARIABLE, told)
    with pytest.raises(CliError, match="CAPSIGN_DEV_PORTS"):
        layouts.free_listeners(1)


@pytest.mark.parametrize("url", ["sqlite:///a#b", "sqlite:///100%"])
def test_a_store_of_another_name_than_it_says_is_refused(tmp_path, url):
    with pytest.raises(CliError, match="%23"):
        layouts.store_url(layouts.Layout(tmp_path, tmp_path), url)


def test_a_directory_that_grpc_cannot_name_has_its_sockets_elsewhere(tmp_path):
    layout = prepare.make_directories(tmp_path / "a,b", None)
    assert not layout.run.is_relative_to(tmp_path)
    assert unix_socket.fault(layout.health) == ""
    shutil.rmtree(layout.run)


@pytest.mark.parametrize("name", ['\U0001f511 "q" \\', "%2F", "\x7f", "a,b", "#"])
def test_settings_name_an_odd_directory(tmp_path, ca, name):
    sockets = Path("/run/r") / name.replace(",", "")  # a socket's path is short, `tmp_path` is not
    layout = layouts.Layout(tmp_path / name, sockets)
    file = tmp_path / "agent.toml"
    file.write_text(
        layouts.agent_config(layout, [LISTENER], ca.issue("app", "/a"), ca.certificate_file),
        encoding="utf-8",
    )
    assert agent_config.load(file, {}).journal.dir == layout.state / "journal"
    server = ca.issue("adapter", "/adapter", server=True)
    text = layouts.adapter_config(
        layout,
        LISTENER,
        server,
        ca.certificate_file,
        TOKEN,
        layouts.store_url(layout, "sqlite"),
        None,
    )
    file.write_text(text, encoding="utf-8")
    config = settings.load(file, AdapterConfig, "CAPSIGN_ADAPTER", {})
    assert config.policy == layout.policy
    assert sqlite_url.path_of(config.store.url) == str(layout.state / "capsign.sqlite")


@pytest.mark.parametrize("url", ["", "mysql://x", "sqlite:/relative"])
def test_a_store_that_is_none_is_refused(tmp_path, url):
    with pytest.raises(CliError, match="no store"):
        layouts.store_url(layouts.Layout(tmp_path, tmp_path), url)


def issued(directory, *, renew=True, **left):
    """Certificates that last for as long as the test says, 90 days if it says nothing."""
    life = datetime.timedelta(**(left or {"days": 90}))
    ca = DevelopmentCa(directory / "pki", renew=renew, life=life)
    one = ca.issue("app", "/ns/demo/sa/app")
    read = x509.load_pem_x509_certificate
    return read(ca.certificate_file.read_bytes()), read(one.certificate.read_bytes()), one


@pytest.mark.parametrize("left", [{"minutes": -1}, {"days": 6}])
def test_certificates_that_end_are_made_anew(tmp_path, left):
    """A directory of three months ago could not be started again: `dev up` waited a minute for
    processes that no one believed.
    """
    issued(tmp_path, **left)
    authority, certificate, one = issued(tmp_path)
    certificate.verify_directly_issued_by(authority)
    assert (
        load_pem_private_key(one.private_key.read_bytes(), None).public_key()
        == certificate.public_key()
    )
    now = datetime.datetime.now(datetime.UTC)
    assert min(
        authority.not_valid_after_utc, certificate.not_valid_after_utc
    ) > now + datetime.timedelta(days=80)
    assert issued(tmp_path)[:2] == (authority, certificate)


def test_certificates_that_are_in_use_stay(tmp_path):
    before = issued(tmp_path, days=6)
    assert issued(tmp_path, renew=False) == before


def test_certificates_of_a_lost_authority_are_made_anew(tmp_path):
    issued(tmp_path)
    (tmp_path / "pki" / "ca.crt").unlink()
    authority, certificate, _ = issued(tmp_path)
    certificate.verify_directly_issued_by(authority)
