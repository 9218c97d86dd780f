"""Service account tokens as the API server would make them, and as it never would: for attacks that
need a bad one.

The claims are those of bound tokens (KEP-1205): whoever holds the cluster's signing key, as this
test does, can make any.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

ISSUER = "https://kubernetes.default.svc"


@dataclass(frozen=True, slots=True)
class Forge:
    key: Path

    def token(
        self,
        pod: dict[str, Any],
        account: dict[str, Any],
        *,
        audience: str,
        lives_s: int = 600,
        bound: bool = True,
    ) -> str:
        """For this pod and its service account; `lives_s` below -60 has expired (API servers
        forgive a minute).
        """
        now = int(time.time())
        namespace, name = account["metadata"]["namespace"], account["metadata"]["name"]
        claims: dict[str, Any] = {
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": account["metadata"]["uid"]},
        }
        if bound:
            claims["pod"] = {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        content = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{namespace}:{name}",
            "aud": [audience],
            "iat": now - 3600,
            "nbf": now - 3600,
            "exp": now + lives_s,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": claims,
        }
        return jwt.encode(content, self.key.read_bytes(), algorithm="ES256")
