"""`--check-config` of the injector: what a start would meet on this machine, told beforehand."""

from __future__ import annotations

import datetime
import json
import socket

import pytest
from capsign_injector import check_config
from capsign_injector import settings as configuration
from capsign_wire.settings import SettingsError
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from support.ca import Authority

AUTHORITY = Authority()
NAME = "capsign-injector.capsign-system.svc"
HOUR = datetime.timedelta(hours=1)


class Place:
    """Settings, a bundle and mounted files."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.bundle = directory / "bundle.pem"
        self.bundle.write_bytes(AUTHORITY.certificate)
        self.token, self.ca = directory / "token", directory / "ca.crt"
        self.token.write_text("token\n")
        self.ca.write_bytes(AUTHORITY.certificate)
        self.server = {"listen": "127.0.0.1:0", "health": "127.0.0.1:0"}

    def mounted(self, **wish) -> None:
        """A certificate from files."""
        certificate, key = AUTHORITY.issue(**({"dns": (NAME,)} | wish)).write(self.directory, "tls")
        self.server |= {"certificate": "files", "cert_file": str(certificate), "key_file": str(key)}

    def own(self) -> None:
        """One that it makes itself."""
        self.server |= {
            "api_server": "https://127.0.0.1:1",
            "token_file": str(self.token),
            "ca_file": str(self.ca),
        }

    def check(self) -> None:
        tree = {"bundle_file": str(self.bundle), "server": self.server}
        check_config.check(configuration.parse(json.dumps(tree).encode(), "settings.yaml"))

    def said(self) -> str:
        with pytest.raises(SettingsError) as caught:
            self.check()
        return str(caught.value)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        None,
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_what_an_api_server_takes_is_good(place, key):
    place.mounted(key=key)
    place.check()


@pytest.mark.parametrize(
    ("wish", "word"),
    [
        ({"key": ed448.Ed448PrivateKey.generate()}, "kind"),
        ({"key": ec.generate_private_key(ec.SECP256K1())}, "kind"),
        ({"life": -HOUR}, "clock"),
        ({"begins": HOUR}, "clock"),
        ({"dns": ()}, "DNS name"),
    ],
)
def test_what_no_api_server_takes(place, wish, word):
    place.mounted(**wish)
    said = place.said()
    assert word in said
    assert "server.cert_file" in said


def test_files_that_are_not_there(place):
    place.mounted()
    (place.directory / "tls.key").unlink()
    assert "tls.key" in place.said()
    place.mounted()
    (place.directory / "tls.key").write_bytes(AUTHORITY.issue("spiffe://x/y").private_key)
    assert "do not belong together" in place.said()
    place.mounted()
    place.bundle.unlink()
    assert "bundle.pem" in place.said()


def test_what_its_own_certificate_needs(place):
    place.own()
    place.check()
    place.token.write_text("\n")
    assert "token" in place.said()
    place.own()
    place.token.write_text("token")
    place.ca.write_text("nothing")
    assert "ca.crt" in place.said()


@pytest.mark.parametrize("key", ["listen", "health"])
def test_an_address_that_cannot_be_had(place, key):
    place.mounted()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.server[key] = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"server.{key}" in place.said()
    place.server[key] = "192.0.2.1:8443"
    assert f"server.{key}" in place.said()
