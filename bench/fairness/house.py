"""The deployment under attack: an adapter, an agent, a victim, its siblings, and attackers of the
same and of another tenant.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
from capsign_cli.dev.ca import DevelopmentCa

from bench.deployment import Deployment

TRUST_DOMAIN = "spiffe://capsign.test"
VICTIM, MATE, STRANGER = "/ns/demo/sa/app", "/ns/demo/sa/other", "/ns/else/sa/stranger"
"""Who is hurt, and who attacks: a workload of the same tenant, or of another one."""

SIBLINGS = 4
"""Certificates that each of them has: the pods of a Deployment. The victim signs with the first of
its own.
"""

_GRANT = """
  - name: {name}
    tenant: {tenant}
    key: {key}
    workloads: ["{trust_domain}{path}"]
    purpose: jwt
    algorithms: {algorithms}
    protocols: [{{protocol: jwt, roles: [issuer], versions: ["1"]}}]
    transcript: allowed
"""
_HEAD = """
version: 1
trust_domain: capsign.test
tenants: [{name: demo}, {name: else}]
keys:
  - {tenant: demo, name: orders, kind: derived, algorithms: [Ed25519, ES256, HS256, ML-DSA-65]}
  - {tenant: demo, name: root, kind: direct, algorithms: [RS256]}
  - {tenant: else, name: orders, kind: derived, algorithms: [Ed25519, ES256, HS256, ML-DSA-65]}
  - {tenant: else, name: root, kind: direct, algorithms: [RS256]}
grants:"""
_WORKER = """
  - name: orders-short
    tenant: demo
    key: orders
    workloads: ["{trust_domain}{path}"]
    purpose: short
    algorithms: [Ed25519]
    protocols: [{{protocol: jwt, roles: [issuer], versions: ["1"]}}]
"""
"""What the second socket of the agent of `dev up` offers."""

_TAIL = """
roles:
  - {role: operator, identities: ["spiffe://capsign.test/operator/dev"]}
  - {role: responder, identities: ["spiffe://capsign.test/responder/dev"]}
  - {role: auditor, identities: ["spiffe://capsign.test/auditor/dev"]}
limits: {intent_retention: 24h, clock_skew: 30s, message_max: 65536}
"""


def policy() -> str:
    """Each workload has a grant with a derived key, `jwt-<account>`, and one with a key in the
    token, `root-<account>`.
    """
    grants = ""
    for tenant, path in (("demo", VICTIM), ("demo", MATE), ("else", STRANGER)):
        account = path.rsplit("/", 1)[1]
        for name, key, algorithms in (
            ("jwt", "orders", "[Ed25519, ES256, HS256, ML-DSA-65]"),
            ("root", "root", "[RS256]"),
        ):
            grants += _GRANT.format(
                name=f"{name}-{account}",
                tenant=tenant,
                key=key,
                path=path,
                algorithms=algorithms,
                trust_domain=TRUST_DOMAIN,
            )
    return _HEAD + grants + _WORKER.format(trust_domain=TRUST_DOMAIN, path=VICTIM) + _TAIL


class House:
    """Started when it is first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._deployment: Deployment | None = None

    @cached_property
    def about(self) -> dict[str, Any]:
        """What runs where, as JSON for the processes that take part: address, certificates by
        account, sockets.
        """
        file = self._directory / "policy.yaml"
        file.write_text(policy())
        self._deployment = Deployment(self._directory, 1, file)
        described = self._deployment.description
        ca = DevelopmentCa(self._directory / "dev" / "pki", renew=False)
        identities = {}
        for path in (VICTIM, MATE, STRANGER):
            account = path.rsplit("/", 1)[1]
            made = [ca.issue(f"fair-{account}-{number}", path) for number in range(SIBLINGS)]
            identities[account] = [[str(one.certificate), str(one.private_key)] for one in made]
        return {
            "address": described["adapters"][0]["address"],
            "server_name": described["server_name"],
            "ca": str(ca.certificate_file),
            "identities": identities,
            "sockets": described["sockets"],
        }

    def process(self, server: str) -> psutil.Process:
        """The process that an attack is aimed at: `adapter` or `agent`."""
        self.about  # noqa: B018 # started by the first look
        assert self._deployment is not None
        return self._deployment.agent if server == "agent" else self._deployment.adapters[0]

    def close(self) -> None:
        if self._deployment is not None:
            self._deployment.close()
