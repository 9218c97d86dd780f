"""A made-up inventory, as `capsign_cli.inventory_values` gives it."""

from __future__ import annotations

from typing import Any

NS = "spiffe://capsign.test/ns"


def version(key: str, number: int, **fields: Any) -> dict[str, Any]:
    made = {
        "key": key,
        "version": number,
        "state": "active",
        "revoked": "",
        "custody": "adapter-memory",
        "algorithms": ["Ed25519", "ES256", "ML-DSA-65"],
        "created_at": "2026-01-10T08:00:00Z",
        "activated_at": "2026-01-12T08:00:00Z",
        "last_used_at": "2026-11-29T20:00:00Z",
        "age": "321 d",
        "used_share": 43,
        "last_used": "40 s ago",
        "uses": 1_204_331,
        "objects": [f"capsign/{key}/{number}"],
        "check_value": "5f0c9d11a2b3c4d5",
        "subjects": 3,
    }
    return {**made, **fields}


def key(name: str, **fields: Any) -> dict[str, Any]:
    made = {
        "key": name,
        "kind": "derived",
        "in_policy": True,
        "algorithms": ["Ed25519", "ES256", "ML-DSA-65"],
        "cryptoperiod": "2.0 y",
        "rotates_every": "90 d",
        "horizon": "",
        "horizon_year": "",
        "exposed": False,
        "grants": 2,
        "subjects": 3,
    }
    return {**made, **fields}


def grant(name: str, of: str, workloads: list[str]) -> dict[str, Any]:
    return {
        "grant": name,
        "key": of,
        "purpose": "access-token",
        "algorithms": ["Ed25519", "ES256"],
        "protocols": ["jwt"],
        "ttl": "15 min",
        "min_custody": "adapter-memory",
        "workloads": workloads,
    }


def made_up() -> dict[str, Any]:
    """A deployment with something of everything."""
    direct = {"custody": "hsm-direct", "algorithms": ["ES384"]}
    return {
        "at": "2026-11-29T21:30:00Z",
        "epoch": 57,
        "tenants": ["acme", "shop"],
        "keys": [
            key(
                "acme/invoices", rotates_every="", exposed=True, horizon_year="2046", horizon="20 y"
            ),
            key("acme/orders"),
            key("acme/releases", kind="direct", algorithms=["ES384"], rotates_every=""),
            key("shop/legacy", in_policy=False, subjects=0, grants=0, rotates_every=""),
            key("shop/receipts", subjects=41),
        ],
        "versions": [
            version("acme/invoices", 1, used_share=117, age="2.3 y", uses=88_120),
            version("acme/orders", 4, used_share=3, age="22 d"),
            version("acme/orders", 3, state="deactivated", last_used="22 d ago"),
            version("acme/releases", 2, used_share=86, age="1.7 y", **direct),
            version("acme/releases", 1, state="compromised", **direct),
            version("shop/legacy", 1, state="suspended", last_used="never", last_used_at=""),
            version("shop/receipts", 2, used_share=51, uses=9_120_443),
            version("shop/receipts", 1, state="destroyed", used_share=None, age=""),
        ],
        "grants": [
            grant("orders-tokens", "acme/orders", [f"{NS}/shop/sa/orders"]),
            grant("receipts", "shop/receipts", [f"{NS}/shop/sa/till-{n}" for n in range(41)]),
        ],
        "objects": [
            {"label": label, "kinds": kinds, "purpose": purpose, "known": known}
            for label, kinds, purpose, known in (
                ("capsign/acme/orders/4", ["secret-key"], "key acme/orders/4", True),
                (
                    "capsign/acme/orders/4/attest",
                    ["private-key", "public-key"],
                    "attestations of acme/orders/4",
                    True,
                ),
                ("capsign/log", ["private-key", "public-key"], "checkpoints of the log", True),
                ("capsign/mint", ["secret-key"], "handles", True),
                ("backup <script>alert(1)</script>", ["data"], "", False),
            )
        ],
        "drift": [
            {
                "kind": "unknown-object",
                "subject": "backup <script>alert(1)</script>",
                "aspect": "object",
                "expected": "nothing",
                "found": "data",
                "since": "2026-11-29T21:29:41Z",
            },
            {
                "kind": "lifetime",
                "subject": "key/acme/invoices/1",
                "aspect": "cryptoperiod",
                "expected": "at most 17520h",
                "found": "signs since 2024-08-02",
                "since": "2026-08-02T00:00:12Z",
            },
        ],
    }
