"""Key sets and JWS made with known keys, and a server of them by HTTPS."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from capsign_adapter.algorithms.kid import public_members, thumbprint
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.ca import Authority

PSS = padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def raw(der: bytes, size: int) -> bytes:
    return b"".join(part.to_bytes(size) for part in decode_dss_signature(der))


def keys() -> dict[str, tuple[Any, Any]]:
    """A private key of each algorithm, and how it signs as JOSE has it."""
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    large, ed = rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()
    ml, sha256, sha384 = mldsa.MLDSA65PrivateKey.generate(), hashes.SHA256(), hashes.SHA384()
    return {
        "EdDSA": (ed, ed.sign),
        "ES256": (p256, lambda m: raw(p256.sign(m, ec.ECDSA(sha256)), 32)),
        "ES384": (p384, lambda m: raw(p384.sign(m, ec.ECDSA(sha384)), 48)),
        "PS256": (large, lambda m: large.sign(m, PSS, sha256)),
        "RS256": (large, lambda m: large.sign(m, padding.PKCS1v15(), sha256)),
        "ML-DSA-65": (ml, ml.sign),
    }


KEYS = keys()


def jwk(algorithm: str, **members: Any) -> dict[str, Any]:
    public = KEYS[algorithm][0].public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    kid = f"{algorithm}-{thumbprint(spki)}"
    made = {**public_members(spki), "kid": kid, "alg": algorithm, "use": "sig"}
    return {**made, "capsign_state": "active", "capsign_version": 1, **members}


def set_of(*algorithms: str, sequence: int = 1) -> bytes:
    members = {"keys": [jwk(name) for name in algorithms], "capsign_sequence": sequence}
    return json.dumps(members).encode()


def jws(algorithm: str, **header: Any) -> str:
    head = {"alg": algorithm, "kid": jwk(algorithm)["kid"], **header}
    signed = f"{text(json.dumps(head).encode())}.{text(b'payload')}"
    return f"{signed}.{text(KEYS[algorithm][1](signed.encode()))}"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Server(http.server.ThreadingHTTPServer):
    """Serves one set, or whatever status it is told."""

    def __init__(self, authority: Authority, directory) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        issued = authority.issue("spiffe://capsign.test/adapter", dns=("localhost",))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issued.write(directory, "server"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.status, self.body, self.headers = 200, set_of("EdDSA"), {"ETag": '"1"'}
        self.asked: list[str] = []
        self.began, self.let = threading.Event(), threading.Event()
        self.let.set()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        tag = self.headers.get("If-None-Match", "")
        self.server.asked.append(tag)
        self.server.began.set()
        assert self.server.let.wait(20)
        same = self.server.status == 200 and tag == self.server.headers.get("ETag")
        self.send_response(304 if same else self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        body = b"" if same else self.server.body
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing is said."""


@contextmanager
def served(directory: Path) -> Iterator[tuple[Server, str, ssl.SSLContext]]:
    """A running server, the URL of its set, and what trusts it."""
    authority = Authority()
    server = Server(authority, directory)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    tls = ssl.create_default_context(cadata=authority.certificate.decode())
    try:
        yield server, f"https://localhost:{server.server_port}/set", tls
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
