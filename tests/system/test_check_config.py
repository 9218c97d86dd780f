"""`--check-config` says good of what starts and names what does not: it tries what a start would,
and changes nothing.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from support.ca import Authority, usage
from support.copied_deployment import Place
from support.hostile import deployment

pytestmark = pytest.mark.system

HOUR = datetime.timedelta(hours=1)


@pytest.fixture(scope="module")
def dev():
    with deployment() as one:
        for process in (one.agent, one.adapter()):
            one.end(process)
        yield one


@pytest.fixture
def place(dev, short_dir):
    return Place(dev, short_dir / "copy")


def named(place: Place, program: str, key: str) -> Path:
    """The file that a setting names."""
    (found,) = re.findall(rf'^{key} = "(.*)"$', place.config(program).read_text(), re.MULTILINE)
    return Path(found)


def seen(root: Path) -> dict[str, tuple[int, str]]:
    """Everything below: mode and content. SQLite's own log and the token's files, which each login
    touches, aside.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        if (
            path.is_file()
            and not path.name.endswith((".sqlite-shm", ".sqlite-wal"))
            and "tokens" not in path.parts
        ):
            found[str(path.relative_to(root))] = (
                path.stat().st_mode,
                hashlib.sha256(path.read_bytes()).hexdigest(),
            )
        elif path.is_dir():
            found[str(path.relative_to(root))] = (path.stat().st_mode, "")
    return found


@pytest.mark.parametrize("program", ["adapter", "agent"])
def test_what_starts_is_good_and_stays_as_it_was(place, program):
    before = seen(place.root)
    done = place.start(program, "--check-config")
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    assert seen(place.root) == before


# The adapter.


def sentence(said: str) -> str:
    """What we said, without what gRPC logs."""
    return said[said.index("capsign-adapter cannot start.") :]


def gone(path: Path) -> None:
    path.unlink()


BROKEN = {
    "no PIN file": (lambda place: gone(place.token / "capsign.pin"), "capsign.pin"),
    "an empty PIN file": (lambda place: (place.token / "capsign.pin").write_text(""), "empty"),
    "a wrong PIN": (lambda place: (place.token / "capsign.pin").write_text("4711-wrong\n"), "PIN"),
    "no certificate": (lambda place: gone(named(place, "adapter", "certificate")), "adapter"),
    "no private key": (lambda place: gone(named(place, "adapter", "private_key")), "adapter"),
    "no CA": (lambda place: gone(named(place, "adapter", "client_ca")), "ca"),
    "a CA without certificates": (
        lambda place: named(place, "adapter", "client_ca").write_text("# nothing\n"),
        "CA file",
    ),
    "no module": (
        lambda place: place.change(
            "adapter", r"^module = .*", 'module = "/nowhere/libsofthsm2.so"'
        ),
        "token.module",
    ),
    "another label": (
        lambda place: place.change("adapter", r"^label = .*", 'label = "elsewhere"'),
        "token.label",
    ),
    "no store": (lambda place: gone(place.store), "capsign.sqlite"),
    "a store that others read": (lambda place: place.store.chmod(0o644), "chmod"),
    "no policy": (lambda place: gone(place.policy), "policy.yaml"),
    "no token": (lambda place: (place.token / "tokens").rename(place.root / "away"), "token"),
    "an address of another machine": (
        lambda place: place.change("adapter", r"^address = .*", 'address = "192.0.2.1:7443"'),
        "listen.address",
    ),
    "a health address of another machine": (
        lambda place: place.change(
            "adapter", r"^health_address = .*", 'health_address = "192.0.2.1:7445"'
        ),
        "listen.health_address",
    ),
}


@pytest.mark.parametrize(("spoil", "word"), BROKEN.values(), ids=BROKEN)
def test_what_an_adapter_cannot_start_with(place, spoil, word):
    spoil(place)
    said = place.refused("adapter", "--check-config")
    assert word in said
    assert sentence(place.refused("adapter")) == sentence(said)  # one way: what a start says


AUTHORITY = Authority()
NAMES = {"dns": ("localhost",)}
UNSERVABLE = {
    "Ed25519": (
        {"key": ed25519.Ed25519PrivateKey.generate(), **NAMES},
        "key that gRPC cannot serve",
    ),
    "Ed448": ({"key": ed448.Ed448PrivateKey.generate(), **NAMES}, "key that gRPC cannot serve"),
    "P-521": (
        {"key": ec.generate_private_key(ec.SECP521R1()), **NAMES},
        "key that gRPC cannot serve",
    ),
    "secp256k1": (
        {"key": ec.generate_private_key(ec.SECP256K1()), **NAMES},
        "key that gRPC cannot serve",
    ),
    "ended": ({"life": -HOUR, **NAMES}, "ended at"),
    "not yet valid": ({"begins": HOUR, **NAMES}, "begins at"),
    "no name": ({}, "no DNS name"),
    "for clients": (
        {
            "extensions": (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]),),
            **NAMES,
        },
        "not for a server",
    ),
    "a key that may not sign": (
        {"extensions": (usage(signs=False, signs_certificates=False),), **NAMES},
        "does not let its key sign",
    ),
}


@pytest.mark.parametrize(("wish", "word"), UNSERVABLE.values(), ids=UNSERVABLE)
def test_a_certificate_that_nobody_could_be_served_with(place, wish, word):
    credential = AUTHORITY.issue("spiffe://capsign.test/adapter", **wish)
    certificate, key = (named(place, "adapter", name) for name in ("certificate", "private_key"))
    certificate.write_bytes(credential.certificate)
    key.write_bytes(credential.private_key)
    said = place.refused("adapter", "--check-config")
    assert word in said
    assert str(certificate) in said


@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 3072)]
)
def test_other_keys_that_can_be_served_are_good(place, key):
    credential = AUTHORITY.issue("spiffe://capsign.test/adapter", key=key, **NAMES)
    named(place, "adapter", "certificate").write_bytes(credential.certificate)
    named(place, "adapter", "private_key").write_bytes(credential.private_key)
    assert place.start("adapter", "--check-config").returncode == 0


def test_the_key_of_another_certificate(place):
    named(place, "adapter", "private_key").write_bytes(
        AUTHORITY.issue("spiffe://capsign.test/x", **NAMES).private_key
    )
    assert "do not belong together" in place.refused("adapter", "--check-config")


# The agent.


def ours(place: Place, name: str) -> Path:
    """One of its credential files."""
    return named(place, "agent", name)


def certified(place: Place, **wish) -> None:
    credential = AUTHORITY.issue("spiffe://capsign.test/ns/demo/sa/app", **wish)
    ours(place, "cert_file").write_bytes(credential.certificate)
    ours(place, "key_file").write_bytes(credential.private_key)


def in_the_way(place: Place, key: str, line: str) -> None:
    """A file where a directory has to be."""
    (place.root / "file").write_text("")
    place.change("agent", rf"^{key} = .*", line.format(root=place.root))


BROKEN_AGENTS = {
    "no certificate": (lambda place: gone(ours(place, "cert_file")), "cannot be read"),
    "no key": (lambda place: gone(ours(place, "key_file")), "cannot be opened"),
    "no CA": (lambda place: gone(ours(place, "ca_file")), "cannot be read"),
    "Ed25519": (
        lambda place: certified(place, key=ed25519.Ed25519PrivateKey.generate()),
        "gRPC does not show",
    ),
    "Ed448": (
        lambda place: certified(place, key=ed448.Ed448PrivateKey.generate()),
        "gRPC does not show",
    ),
    "P-521": (
        lambda place: certified(place, key=ec.generate_private_key(ec.SECP521R1())),
        "gRPC does not show",
    ),
    "ended": (lambda place: certified(place, life=-HOUR), "ended at"),
    "not yet valid": (lambda place: certified(place, begins=HOUR), "begins at"),
    "an authority's": (
        lambda place: certified(
            place, extensions=(x509.BasicConstraints(ca=True, path_length=None),)
        ),
        "authority",
    ),
    "a journal that cannot be made": (
        lambda place: in_the_way(place, "dir", 'dir = "{root}/file/journal"'),
        "no directory",
    ),
    "a socket's directory that cannot be made": (
        lambda place: in_the_way(place, "path", 'path = "{root}/file/x/app.sock"'),
        "no directory",
    ),
}


@pytest.mark.parametrize(("spoil", "word"), BROKEN_AGENTS.values(), ids=BROKEN_AGENTS)
def test_what_an_agent_cannot_work_with(place, spoil, word):
    spoil(place)
    before = seen(place.root)
    assert word in place.refused("agent", "--check-config")
    assert seen(place.root) == before


def test_a_socket_that_somebody_serves(place):
    (path,) = re.findall(r'^path = "(.*/app/.*)"$', place.config("agent").read_text(), re.MULTILINE)
    Path(path).parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as served:
        served.bind(path)
        served.listen()
        assert "serves" in place.refused("agent", "--check-config")


@pytest.mark.parametrize("program", ["adapter"])
def test_an_address_that_is_taken(place, program):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place.change(program, r"^address = .*", f'address = "127.0.0.1:{taken.getsockname()[1]}"')
        assert "listen.address" in place.refused(program, "--check-config")


def test_documents_alone_need_no_token_and_no_store(place):
    """A Job before an upgrade has neither: it reads what a person wrote."""
    place.store.unlink()
    (place.token / "capsign.pin").unlink()
    assert place.start("adapter", "--check-documents").returncode == 0
    place.policy.write_text("version: 1\n")
    assert place.refused("adapter", "--check-documents")


def test_the_last_try_of_a_pin_is_not_the_checks(place, tmp_path):
    """A check is run again and again: it must not be what locks a token."""
    from support.token_loss import apart, cautious_login

    settings = place.token_settings()
    assert apart(cautious_login, settings) == ["PinRejectedError", 0]
