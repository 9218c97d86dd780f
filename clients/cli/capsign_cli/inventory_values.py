"""The inventory as plain values: what `-o json` writes and the page shows."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from capsign_cli import ages, key_values

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import inventory_pb2 as pb
    from google.protobuf.timestamp_pb2 import Timestamp


def of(pages: list[pb.GetInventoryResponse], now: float) -> dict[str, Any]:
    """All pages as one. `now`: seconds since 1970, for ages."""
    keys = {(key.tenant, key.name): key for page in pages for key in page.keys}
    return {
        "at": key_values.when(pages[-1].at),
        "epoch": pages[-1].epoch,
        "tenants": [name for page in pages for name in page.tenants],
        "keys": [_key(key, now) for key in keys.values()],
        "versions": [
            _version(one, keys.get((one.tenant, one.key)), now)
            for page in pages
            for one in page.versions
        ],
        "grants": [_grant(grant) for page in pages for grant in page.grants],
        "objects": [_object(one) for page in pages for one in page.objects],
    }


def _key(key: pb.InventoryKey, now: float) -> dict[str, Any]:
    horizon = key.horizon_ms / 1000
    return {
        "key": f"{key.tenant}/{key.name}",
        "kind": key.kind,
        "in_policy": key.in_policy,
        "algorithms": key_values.names_of(key.algorithms),
        "cryptoperiod": ages.words(key.cryptoperiod_ms / 1000),
        "rotates_every": ages.words(key.rotates_every_ms / 1000) if key.rotates_every_ms else "",
        "horizon": ages.words(horizon) if horizon else "",
        "horizon_year": _year(now + horizon) if horizon else "",
        "exposed": key.exposed,
        "grants": key.grants,
        "subjects": key.subjects,
    }


def _version(one: pb.InventoryVersion, key: pb.InventoryKey | None, now: float) -> dict[str, Any]:
    version = one.version
    activated = seconds(version.activated_at)
    used = ages.share(activated, seconds(version.cryptoperiod_ends_at), now)
    last = seconds(version.last_used_at)
    return {
        **key_values.of_version(version, now),
        "key": f"{one.tenant}/{one.key}",
        "age": ages.words(now - activated) if activated else "",
        "used_share": used,
        "last_used": ages.ago(last, now),
        "uses": one.uses,
        "objects": list(one.objects),
        "subjects": key.subjects if key is not None else 0,
    }


def _grant(grant: pb.InventoryGrant) -> dict[str, Any]:
    from capsign_wire.algorithms import CUSTODY_NAMES

    return {
        "grant": grant.name,
        "key": f"{grant.tenant}/{grant.key}",
        "purpose": grant.purpose,
        "algorithms": key_values.names_of(grant.algorithms),
        "protocols": list(grant.protocols),
        "ttl": ages.words(grant.ttl_ms / 1000),
        "min_custody": CUSTODY_NAMES.get(grant.min_custody, ""),
        "workloads": list(grant.workloads),
    }


def _object(one: pb.InventoryObject) -> dict[str, Any]:
    return {
        "label": one.label,
        "kinds": list(one.kinds),
        "purpose": one.purpose,
        "known": one.known,
    }


def seconds(time: Timestamp) -> float:
    """Seconds since 1970; 0 for a time that is not set."""
    return time.seconds + time.nanos / 1e9


def _year(at: float) -> str:
    from datetime import datetime

    return str(datetime.fromtimestamp(at, UTC).year)
