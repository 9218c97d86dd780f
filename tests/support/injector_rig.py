"""What tests of the injector's server need: a review, a client, an injector in this process."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

from capsign_injector import server_settings
from capsign_injector.certificate import issuing
from capsign_injector.certificate.certificates import Pair

NAME = "capsign-injector.capsign-system.svc"


def review(labels: dict[str, str] | None = None, uid: str = "u-1") -> bytes:
    """An AdmissionReview for a small pod, as an API server sends it."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop", "labels": labels or {}},
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "image": "app",
                    "env": [{"name": "SECRET", "value": "do-not-log-me"}],
                }
            ]
        },
    }
    request = {
        "uid": uid,
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "operation": "CREATE",
        "namespace": "shop",
        "object": pod,
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
    ).encode()


def trusting(*bundles: bytes) -> ssl.SSLContext:
    """What an API server checks a webhook with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=b"".join(bundles).decode())
    return context


def server(**changes: Any) -> server_settings.Server:
    """The section `server`, on free ports, quick to drain."""
    quick = {"listen": "127.0.0.1:0", "health": "127.0.0.1:0", "drain_delay_s": 0, "drain_s": 5}
    return server_settings.Server(**{**quick, **changes})


def authority_and_leaf(now: int, *names: str) -> tuple[Pair, Pair]:
    """An authority and a certificate of its for NAME and `names`."""
    authority = issuing.make_authority(3_600, now)
    return authority, issuing.make_leaf(authority, (NAME, *names), 3_600, now)


def write(directory: Path, pair: Pair) -> dict[str, str]:
    """The pair as mounted files; gives the settings that name them."""
    certificate, key = directory / "tls.crt", directory / "tls.key"
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    return {"certificate": "files", "cert_file": str(certificate), "key_file": str(key)}
