"""The adapter's own certificate: who is believed in handshakes, what happens at half-life, and what
when something fails.
"""

from __future__ import annotations

import datetime
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import grpc
import pytest
from capsign_adapter.decide.authority_schedule import Lifetimes
from capsign_adapter.enrol import roll
from capsign_adapter.enrol.authority import Authority
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.front.serving import ServingCertificate
from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.clock import now_ms
from capsign_wire.failures import FailureError
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support import ca
from support.adapter_rig import APP

LIFETIMES = Lifetimes(svid_ms=3_600_000, authority_ms=365 * 86_400_000, propagation_ms=600_000)
ADAPTER = "spiffe://capsign.test/capsign/adapter"


class Echo(grpc.GenericRpcHandler):
    """Answers every call with the SPIFFE ID that it sees."""

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: context.auth_context().get("peer_spiffe_id", [b""])[0]
        )


class Place:
    """A server with these credentials, the authority behind it, and a clock that can be turned."""

    def __init__(self, rig, client_ca=None) -> None:
        self.rig = rig
        self.ahead_ms = 0
        self.realm = Realm(rig.policy.trust_domain, lambda: rig.policy.digest, LIFETIMES)
        provision_all(rig.policy, rig.token, rig.store, now_ms(), self.realm)
        self.authority = Authority(rig.token, rig.store, self.realm)
        self.serving = ServingCertificate(
            self.authority, ADAPTER, ("localhost",), client_ca, self.clock
        )
        self._servers: list[grpc.Server] = []
        self.main, self.door = self._serve(True), self._serve(False)

    def clock(self) -> int:
        return now_ms() + self.ahead_ms

    def _serve(self, demand: bool) -> str:
        server = grpc.server(ThreadPoolExecutor(2), handlers=(Echo(),))
        port = server.add_secure_port(
            "127.0.0.1:0", self.serving.credentials(demand_certificate=demand)
        )
        server.start()
        self._servers.append(server)
        return f"127.0.0.1:{port}"

    def svid(self, spiffe_id: str = APP) -> ca.Credential:
        key = ec.generate_private_key(ec.SECP256R1())
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        issued = self.authority.issue(spiffe_id, spki, now_ms())
        pem = ssl.DER_cert_to_PEM_cert(issued.certificates[0]).encode()
        return ca.Credential(
            pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def bundle(self) -> bytes:
        return "".join(map(ssl.DER_cert_to_PEM_cert, self.authority.bundle().authorities)).encode()

    def call(self, address: str, who: ca.Credential | None, roots: bytes = b"") -> bytes:
        pair = (who.private_key, who.certificate) if who else (None, None)
        credentials = grpc.ssl_channel_credentials(roots or self.bundle(), *pair)
        options = [
            ("grpc.ssl_target_name_override", "localhost"),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        with grpc.secure_channel(address, credentials, options) as channel:
            return channel.unary_unary("/any/Method")(b"", timeout=20)

    def shown(self) -> x509.Certificate:
        """The certificate that the server shows now."""
        host, port = self.door.split(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, int(port)), timeout=20) as raw,
            context.wrap_socket(raw) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)

    def close(self) -> None:
        for server in self._servers:
            server.stop(None).wait()


@pytest.fixture
def place(rig):
    made = Place(rig)
    yield made
    made.close()


def test_whom_the_authority_signed_is_believed_and_nobody_else(place):
    assert place.call(place.main, place.svid()) == APP.encode()
    for stranger in (None, ca.Authority().issue(APP)):
        with pytest.raises(grpc.RpcError) as caught:
            place.call(place.main, stranger)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_the_door_asks_for_no_certificate_and_shows_the_same(place):
    assert place.call(place.door, None) == b""
    with pytest.raises(grpc.RpcError):
        place.call(place.door, None, roots=ca.Authority().certificate)


def test_it_is_renewed_at_half_life_with_another_key(place):
    first = place.shown()
    place.serving.look()
    assert place.shown() == first
    place.ahead_ms = LIFETIMES.svid_ms // 2
    place.serving.look()
    second = place.shown()
    assert LIFETIMES.svid_ms - 60_000 < place.serving.remaining_s() * 1000 <= LIFETIMES.svid_ms
    assert second.public_key() != first.public_key()
    assert second.not_valid_after_utc - first.not_valid_after_utc >= datetime.timedelta(minutes=29)


def test_a_clock_that_was_ahead_for_a_while_leaves_no_certificate_of_the_future(place):
    """The clock jumped ten days ahead, the certificate was renewed then, and the clock was put
    right: it was good for nobody, and would not have been renewed for ten days.
    """
    place.ahead_ms = 10 * 86_400_000
    place.serving.look()
    place.ahead_ms = 0
    place.serving.look()
    assert place.shown().not_valid_before_utc < datetime.datetime.now(datetime.UTC)
    assert place.call(place.main, place.svid()) == APP.encode()


def test_a_token_that_is_gone_at_half_life_leaves_the_certificate_in_force(place):
    first = place.shown()
    place.ahead_ms = LIFETIMES.svid_ms // 2
    place.rig.token.lose()
    with pytest.raises(FailureError):
        place.serving.look()
    assert place.shown() == first
    place.rig.token.restore()
    place.serving.look()
    assert place.shown() != first


def test_a_new_authority_is_believed_before_it_signs(place):
    old = place.svid()
    roll.prepare(
        place.rig.store.authorities(), place.rig.token, place.rig.store, place.realm, now_ms()
    )
    place.authority.look(now_ms)
    place.serving.look()
    place.authority.look(lambda: now_ms() + LIFETIMES.activation_delay_ms)  # it is active
    assert [row.state.name for row in place.authority.rows()] == ["ACTIVE", "ACTIVE"]
    for credential in (old, place.svid()):
        assert place.call(place.main, credential) == APP.encode()


def test_a_token_that_is_gone_keeps_nobody_from_being_believed(place):
    """The certificate is due and cannot be renewed; meanwhile another replica prepared an
    authority, which signs soon.
    """
    successor = roll.prepare(
        place.rig.store.authorities(), place.rig.token, place.rig.store, place.realm, now_ms()
    )
    place.authority.refresh()
    place.ahead_ms = LIFETIMES.svid_ms // 2
    place.rig.token.lose()
    with pytest.raises(FailureError):
        place.serving.look()
    place.rig.token.restore()
    place.authority.look(lambda: now_ms() + LIFETIMES.activation_delay_ms)  # it is active
    newcomer = place.svid()
    issuer = x509.load_pem_x509_certificate(newcomer.certificate).issuer.rfc4514_string()
    assert issuer == f"CN=capsign authority {successor.version}"
    assert place.call(place.main, newcomer) == APP.encode()


def test_a_file_that_cannot_be_read_keeps_the_certificate_from_nothing(rig, tmp_path):
    """Somebody broke the operators' CA file; hours later the certificate would have ended, and
    nobody could sign.
    """
    file = tmp_path / "operators.pem"
    file.write_bytes(ca.Authority("operators").certificate)
    place = Place(rig, file)
    try:
        first = place.shown()
        file.unlink()
        place.ahead_ms = LIFETIMES.svid_ms // 2
        with pytest.raises(OSError, match="operators"):
            place.serving.look()
        assert place.shown() != first
    finally:
        place.close()


def spoil(file, how: str) -> None:
    if how == "gone":
        file.unlink()
    elif how == "broken":
        file.write_bytes(b"not a certificate")
    else:
        file.write_bytes(ca.Authority("operators", life=datetime.timedelta(hours=-1)).certificate)


@pytest.mark.parametrize("how", ["gone", "broken", "ended"])
def test_a_new_authority_is_believed_whatever_became_of_the_operators_ca(rig, tmp_path, how):
    """It was not: when the authority was rolled, the pods that had a certificate of the new one
    were refused.
    """
    file = tmp_path / "operators.pem"
    file.write_bytes(ca.Authority("operators").certificate)
    place = Place(rig, file)
    try:
        spoil(file, how)
        roll.prepare(
            place.rig.store.authorities(), place.rig.token, place.rig.store, place.realm, now_ms()
        )
        place.authority.look(now_ms)
        with nullcontext() if how == "ended" else pytest.raises(OSError, match="operators"):
            place.serving.look()
        place.authority.look(lambda: now_ms() + LIFETIMES.activation_delay_ms)  # it is active
        assert place.call(place.main, place.svid()) == APP.encode()
    finally:
        place.close()


def test_an_operators_ca_that_has_ended_keeps_no_adapter_from_starting_and_a_check_tells_it(
    rig, tmp_path
):
    """A year after somebody made it the node was restarted, and nobody could sign."""
    file = tmp_path / "operators.pem"
    spoil(file, "ended")
    place = Place(rig, file)
    try:
        assert place.call(place.main, place.svid()) == APP.encode()
        with pytest.raises(OSError, match="is valid now"):
            ServingCertificate(place.authority, ADAPTER, ("localhost",), file, now_ms, trial=True)
    finally:
        place.close()


def test_an_operators_ca_is_believed_beside_the_bundle_and_followed(rig, tmp_path):
    operators, file = ca.Authority("operators"), tmp_path / "operators.pem"
    file.write_bytes(operators.certificate)
    place = Place(rig, file)
    try:
        boss = "spiffe://capsign.test/operator/dev"
        assert place.call(place.main, operators.issue(boss)) == boss.encode()
        assert place.call(place.main, place.svid()) == APP.encode()
        others = ca.Authority("others")
        file.write_bytes(others.certificate)
        place.serving.look()
        assert place.call(place.main, others.issue(boss)) == boss.encode()
        with pytest.raises(grpc.RpcError):
            place.call(place.main, operators.issue(boss))
        file.write_bytes(b"not a certificate")
        with pytest.raises(OSError, match="is not PEM"):
            place.serving.look()
        assert place.call(place.main, others.issue(boss)) == boss.encode()
    finally:
        place.close()
