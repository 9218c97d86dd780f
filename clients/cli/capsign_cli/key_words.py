"""What an act on a version of a key will do, in words, before anybody agrees to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capsign_cli import key_values

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import keys_pb2

FROM = {
    "suspend": ("active",),
    "resume": ("suspended",),
    "activate": ("pre-activation",),
    "deactivate": ("active", "suspended"),
    "compromise": ("active", "suspended", "deactivated", "pre-activation"),
    "destroy": ("deactivated", "compromised", "pre-activation"),
}
"""States of the versions that can be meant where only the key is named."""

WORDS = {
    "suspend": "{workloads} stop signing with {name} until an operator resumes it, and what it "
    "signed does not verify meanwhile. {after}",
    "resume": "{name} signs and verifies again.",
    "deactivate": "{workloads} stop signing with {name} for good; what it signed still verifies. "
    "{after}",
    "compromise": "{name} neither signs nor verifies any more, for good: verifiers stop trusting "
    "what it signed.",
    "destroy": "{name} is destroyed for good, once somebody else approves it and the waiting "
    "period is over.",
}


def foretold(event: str, whole: str, key: keys_pb2.GetKeyResponse, version: int) -> str:
    """What an event does to a version in the state that it is in. `whole` is its name."""
    states = {one.version: key_values.state(one.state) for one in key.key.versions}
    now = states.get(version, "not there")
    if now not in FROM[event]:
        return f"{whole} is {now}: the adapter will refuse this."
    if now == "suspended" and event == "deactivate":
        return f"{whole} is suspended and never signs again; what it signed verifies again."
    others = [
        one.version
        for one in key.key.versions
        if states[one.version] == "active" and not one.revoked_epoch and one.version != version
    ]
    after = f"Version {max(others)} signs in its place." if others else "No other version signs."
    told = WORDS[event].format(name=whole, workloads=workloads(key), after=after)
    return f"{told} {after}" if event == "compromise" and now == "active" else told


def workloads(key: keys_pb2.GetKeyResponse) -> str:
    """Who signs with a key, in words."""
    count, grants = key.workloads, ", ".join(key.grants[:8])
    more = f" and {len(key.grants) - 8} more" if len(key.grants) > 8 else ""
    if not count:
        return "No workloads (no grant names the key)"
    return f"{count} workload{'s' if count > 1 else ''} (grants {grants}{more})"
