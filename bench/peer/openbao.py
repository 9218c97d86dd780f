"""OpenBao's transit engine as a pod would use it: a server, and its proxy on a Unix socket.

Tuned in its favour: storage in memory, no log below errors, HTTP/2 with TLS 1.3 between proxy and
server, an audit file that is never synced, a batch token (which the server need not look up)
without the default policy (a template, which it would parse anew for every request), and fewer
collections of garbage in the server.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import os
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bench.peer.transit import signs

START_SECONDS = 60.0
POLL_SECONDS = 0.005

SERVER = """
log_level = "error"
api_addr = "{address}"
storage "inmem" {{}}
seal "static" {{
  current_key_id = "bench"
  current_key = "{seal_key}"
}}
listener "tcp" {{
  address = "{host}"
  tls_cert_file = "{directory}/server.pem"
  tls_key_file = "{directory}/server.key"
  tls_min_version = "tls13"
}}
audit "file" "file" {{
  options = {{ file_path = "{directory}/audit.log" }}
}}
initialize "bench" {{
{requests}
}}
"""

PROXY = """
log_level = "error"
vault {{
  address = "{address}"
  ca_cert = "{directory}/server.pem"
}}
auto_auth {{
  method "approle" {{
    config = {{
      role_id_file_path = "{directory}/role"
      secret_id_file_path = "{directory}/secret"
      remove_secret_id_file_after_reading = false
    }}
  }}
}}
api_proxy {{
  use_auto_auth_token = true
}}
listener "unix" {{
  address = "{directory}/proxy.sock"
  tls_disable = true
}}
"""

POLICY = (
    'path \\"transit/sign/signing\\" { capabilities = [\\"update\\"] } '
    'path \\"transit/hmac/mac/*\\" { capabilities = [\\"update\\"] } '
    'path \\"transit/keys/signing\\" { capabilities = [\\"read\\"] }'
)


class OpenBao:
    """Both processes, from the start until `close`."""

    def __init__(self, program: str, directory: Path) -> None:
        """`program` is the path of `bao`. What it needs is written into `directory`. Raises
        SystemExit with what the processes said if one of them does not start.
        """
        self._program = program
        self._directory = directory
        self._running: list[subprocess.Popen[bytes]] = []
        self.socket = str(directory / "proxy.sock")
        try:
            self._bring_up(f"127.0.0.1:{_free_port()}")
        except BaseException:
            self.close()
            raise

    def _bring_up(self, host: str) -> None:
        names = {"address": f"https://{host}", "host": host, "directory": str(self._directory)}
        role, secret = secrets.token_hex(16), secrets.token_hex(16)
        (self._directory / "role").write_text(role)
        (self._directory / "secret").write_text(secret)
        _certificate(self._directory)
        seal_key = base64.b64encode(secrets.token_bytes(32)).decode()
        requests = _requests(role, secret)
        config = SERVER.format(seal_key=seal_key, requests=requests, **names)
        self.server = self._start("server", config, GOGC="400")
        trust = ssl.create_default_context(cafile=str(self._directory / "server.pem"))
        self._await(lambda: _is_up(host, trust))
        begin = time.perf_counter()
        self.proxy = self._start("proxy", PROXY.format(**names))
        self._await(lambda: signs(self.socket))
        self.startup_us = (time.perf_counter() - begin) * 1e6
        """From the start of the proxy to its first signature."""
        self.idle_mib = self.proxy_mib()

    def _start(self, kind: str, config: str, **settings: str) -> psutil.Process:
        path = self._directory / f"{kind}.hcl"
        path.write_text(config)
        told = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BAO_", "VAULT_"))
        }
        with (self._directory / f"{kind}.log").open("w") as said:
            process = subprocess.Popen(
                [self._program, kind, f"-config={path}"],
                stdout=said,
                stderr=subprocess.STDOUT,
                env={**told, **settings},
            )
        self._running.append(process)
        return psutil.Process(process.pid)

    def _await(self, ready: Callable[[], bool]) -> None:
        end = time.perf_counter() + START_SECONDS
        while not ready():
            over = any(process.poll() is not None for process in self._running)
            if over or time.perf_counter() > end:
                said = [path.read_text()[-2000:] for path in self._directory.glob("*.log")]
                raise SystemExit("\n".join(["OpenBao did not start:", *said]))
            time.sleep(POLL_SECONDS)

    def proxy_mib(self) -> float:
        """Resident memory of the proxy."""
        return float(self.proxy.memory_info().rss / 2**20)

    def close(self) -> None:
        """End both."""
        for process in reversed(self._running):
            process.terminate()
            process.wait(30)
        self._running.clear()


def _requests(role: str, secret: str) -> str:
    """What the server is told of keys and of who may use them, when it first starts."""
    app = "auth/approle/role/app"
    return "\n".join(
        (
            _request("mount", "sys/mounts/transit", 'type = "transit"'),
            _request("signing", "transit/keys/signing", 'type = "ed25519"'),
            _request("mac", "transit/keys/mac", 'type = "hmac"', "key_size = 32"),
            _request("policy", "sys/policies/acl/app", f'policy = "{POLICY}"'),
            _request("approle", "sys/auth/approle", 'type = "approle"'),
            _request(
                "app",
                app,
                'token_policies = ["app"]',
                'token_type = "batch"',
                "token_no_default_policy = true",
            ),
            _request("role", f"{app}/role-id", f'role_id = "{role}"'),
            _request("secret", f"{app}/custom-secret-id", f'secret_id = "{secret}"'),
        )
    )


def _request(name: str, path: str, *data: str) -> str:
    fields = "\n      ".join(data)
    return f"""  request "{name}" {{
    operation = "update"
    path = "{path}"
    data = {{
      {fields}
    }}
  }}"""


def _certificate(directory: Path) -> None:
    """A certificate of the server that the proxy trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "openbao")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "server.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def _is_up(host: str, trust: ssl.SSLContext) -> bool:
    """Whether the server answers, and is unsealed."""
    connection = http.client.HTTPSConnection(host, context=trust, timeout=5)
    try:
        connection.request("GET", "/v1/sys/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
