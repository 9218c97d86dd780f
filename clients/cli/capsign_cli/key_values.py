"""Keys and their versions as the command line shows them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from capsign_cli import ages

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import admin_pb2, keys_pb2
    from google.protobuf.timestamp_pb2 import Timestamp

VERSION_COLUMNS = (
    "version",
    "state",
    "custody",
    "algorithms",
    "published_at",
    "activated_at",
    "since",
    "last_used_at",
    "cryptoperiod_used",
    "check_value",
)


def state(number: int) -> str:
    """A state by its number in capsign.types.v1.KeyState."""
    from capsign_wire.types.v1 import signing_pb2

    name = signing_pb2.KeyState.Name(signing_pb2.KeyState.ValueType(number))
    return name.removeprefix("KEY_STATE_").lower().replace("_", "-")


def when(at: Timestamp) -> str:
    """A time; empty for one that is not set."""
    if not at.seconds:
        return ""
    return at.ToDatetime().isoformat(timespec="seconds") + "Z"


def of_version(version: admin_pb2.KeyVersion, now: float | None = None) -> dict[str, Any]:
    """One version. `now`: seconds since 1970, for the share of its cryptoperiod that is over."""
    from capsign_wire.algorithms import CUSTODY_NAMES

    return {
        "version": version.version,
        "state": state(version.state),
        "revoked": f"at epoch {version.revoked_epoch}" if version.revoked_epoch else "",
        "custody": CUSTODY_NAMES.get(version.custody, ""),
        "algorithms": names_of(version.algorithms),
        "created_at": when(version.created_at),
        "published_at": when(version.published_at),
        "activated_at": when(version.activated_at),
        "since": when(version.since),
        "activation_epoch": version.activation_epoch,
        "gone_at": when(version.gone_at),
        "last_used_at": when(version.last_used_at),
        "cryptoperiod_ends_at": when(version.cryptoperiod_ends_at),
        "cryptoperiod_used": _used(version, time.time() if now is None else now),
        "check_value": version.check_value.hex(),
    }


def _used(version: admin_pb2.KeyVersion, now: float) -> str:
    begin, end = version.activated_at.seconds, version.cryptoperiod_ends_at.seconds
    used = ages.share(begin, end, now)
    return "" if used is None else f"{used} %"


def columns(usual: Sequence[str], versions: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns the columns of a table of versions: `revoked` too, where one is."""
    if not any(one["revoked"] for one in versions):
        return tuple(usual)
    place = usual.index("state") + 1
    return (*usual[:place], "revoked", *usual[place:])


def of_key(key: keys_pb2.GetKeyResponse) -> dict[str, Any]:
    """One key with its versions, newest first."""
    return {
        "tenant": key.key.tenant,
        "key": key.key.name,
        "in_policy": key.in_policy,
        "next_version_has": names_of(key.policy_algorithms),
        "grants": list(key.grants),
        "workloads": key.workloads,
        "to_be_destroyed": [
            f"version {one.version} by proposal {UUID(bytes=one.proposal_id)}"
            + (f" at {when(one.not_before)}" if one.HasField("not_before") else ", not approved")
            for one in key.destructions
        ],
        "versions": [of_version(version) for version in key.key.versions],
    }


def names_of(numbers: Any) -> list[str]:
    """Algorithms by name; those that are not known are left out."""
    from capsign_wire.algorithms import ALGORITHMS

    return [ALGORITHMS[number].name for number in numbers if number in ALGORITHMS]
