"""A client of ours takes the servers that gRPC takes, on every Python, and nobody whose authority
it was not given.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from capsign_wire import tls_trust
from support.ca import Authority

ROOT = Path(__file__).parents[2]
SOURCES = ("agent", "adapter", "clients", "k8s", "proto/python", "softhsm")


def shake(
    directory: Path, client: ssl.SSLContext, authority: Authority, asked: str = "adapter.example"
) -> None:
    """A handshake in memory, with a server that this authority certified. Raises what the client
    raises.
    """
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(*authority.issue(dns=("adapter.example",)).write(directory, "serving"))
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=asked)
    theirs = serving.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    while waiting:
        one = waiting.pop(0)
        try:
            one.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(one)


def test_an_authority_with_no_more_than_it_needs_is_taken(tmp_path):
    """As `openssl req -x509` made them for decades. The strict rules of Python 3.13 are the
    control.
    """
    plain = Authority(plain=True)
    context = tls_trust.context(plain.certificate.decode())
    shake(tmp_path, context, plain)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, context, plain)


def test_nobody_else_is_taken_and_the_name_counts(tmp_path):
    authority = Authority()
    context = tls_trust.context(ssl.PEM_cert_to_DER_cert(authority.certificate.decode()))
    shake(tmp_path, context, authority)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, context, Authority("another"))
    with pytest.raises(ssl.SSLCertVerificationError, match="not valid for"):
        shake(tmp_path, context, authority, asked="other.example")


def test_the_system_does_not_trust_an_authority_of_ours(tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(tmp_path, tls_trust.of_the_system(), Authority())


def test_no_secret_of_a_connection_goes_into_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "secrets"))
    authority = Authority()
    shake(tmp_path, tls_trust.context(authority.certificate.decode()), authority)
    assert not (tmp_path / "secrets").exists()


def test_no_other_module_asks_python_for_its_own_idea_of_trust():
    """On Python 3.13 an injector found that no adapter of a plain authority was its own, and made
    no pod ready to run.
    """
    asks = [
        str(file.relative_to(ROOT))
        for folder in SOURCES
        for file in sorted((ROOT / folder).rglob("*.py"))
        if "ssl.create_default_context(" in file.read_text()
    ]
    assert asks == []
