"""Which certificates can be served and presented: what we say of each kind of key is what gRPC does
with it.
"""

from __future__ import annotations

import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from capsign_adapter.front.server_certificate import servable
from capsign_adapter.front.tls import AGAIN_S, CertificateFiles
from capsign_adapter.sign.clock import now_ms
from capsign_agent.identity import own_certificate
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, rsa
from support.ca import Authority, Credential

AUTHORITY = Authority()
APP = "spiffe://capsign.test/ns/demo/sa/app"
GOOD = AUTHORITY.issue(APP, dns=("localhost",))

KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA-2048": lambda: rsa.generate_private_key(65537, 2048),
    "P-224": lambda: ec.generate_private_key(ec.SECP224R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate,
}


class Answering(grpc.GenericRpcHandler):
    def service(self, _: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda request, _: request)


def shake_hands(server: Credential, client: Credential) -> bool:
    """Whether gRPC serves the one and presents the other."""
    pair = [(server.private_key, server.certificate)]
    ours = grpc.ssl_server_credentials(
        pair, root_certificates=AUTHORITY.certificate, require_client_auth=True
    )
    listening = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Answering()])
    try:
        port = listening.add_secure_port("127.0.0.1:0", ours)
    except RuntimeError:
        return False
    listening.start()
    theirs = grpc.ssl_channel_credentials(
        AUTHORITY.certificate, client.private_key, client.certificate
    )
    try:
        with grpc.secure_channel(f"localhost:{port}", theirs) as channel:
            return channel.unary_unary("/a/b")(b"x", timeout=10) == b"x"
    except grpc.RpcError:
        return False
    finally:
        listening.stop(None).wait()


def we_serve(credential: Credential) -> bool:
    try:
        servable(Path("server.pem"), credential.certificate, now_ms())
    except OSError:
        return False
    return True


@pytest.mark.parametrize("make", KEYS.values(), ids=KEYS)
def test_what_we_say_is_what_grpc_does(make):
    credential = AUTHORITY.issue(APP, dns=("localhost",), key=make())
    assert we_serve(credential) == shake_hands(credential, GOOD)
    assert bool(own_certificate.read(credential.certificate).key) == shake_hands(GOOD, credential)


class Counted(CertificateFiles):
    """Counts how often the files are read."""

    reads = 0

    def load(self) -> grpc.ServerCertificateConfiguration:
        self.reads += 1
        return super().load()


def test_files_that_are_not_good_are_told_once_and_not_read_at_every_handshake(
    tmp_path, capfd, monkeypatch
):
    """Strangers make handshakes: each was a line of the log and a reading of keys, for as long as
    the files were bad.
    """
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    certificate, key = GOOD.write(tmp_path, "serving")
    files = Counted(certificate, key, None)
    certificate.write_bytes(
        AUTHORITY.issue(APP, dns=("localhost",)).certificate
    )  # the key is not yet the one of it
    for _ in range(100):
        assert files.changed() is None
        files.look()
    assert files.reads == 1
    now[0] += AGAIN_S
    assert files.changed() is None
    assert files.reads == 2
    certificate.unlink()
    for _ in range(100):
        assert files.changed() is None
    assert capfd.readouterr().err.count("tls.reload_failed") == 2
    GOOD.write(tmp_path, "serving")
    assert files.changed() is not None  # at once, whoever looked before
    assert files.changed() is None
    assert capfd.readouterr().err.count("tls.reloaded") == 1
