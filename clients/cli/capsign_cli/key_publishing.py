"""`capsign keys publish|activate`: the two steps of a rotation by hand, for operators who let a
version be seen for as long as they want before it signs.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from capsign_cli import key_acts, key_words
from capsign_cli.failures import REFUSED, CliError

if TYPE_CHECKING:
    from capsign_wire.adapter.v1 import admin_pb2, keys_pb2


@click.command()
@key_acts.about_version
def publish(name: str, yes: bool, **options: Any) -> None:
    """Show the public keys of a version that does not sign yet.

    Without VERSION it is the one that waits; one is made if none does. Verifiers fetch it while
    their sets grow old; then `capsign keys activate`. `capsign rollout start` does both, waits, and
    takes back what goes wrong.
    """
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    with key_acts.found(name, options) as (stub, key):
        tenant, own = key.key.tenant, key.key.name
        version = key_acts.parts(name)[2] or _waiting(key, name)
        which = f"{tenant}/{own}/{version}" if version else f"a new version of {tenant}/{own}"
        text = f"The public keys of {which} are shown to verifiers."
        key_acts.confirm(f"{text} It does not sign yet.", f"Publish {which}?", yes)
        if not version:
            newest = key.key.versions[0].version
            request = pb.CreateKeyVersionRequest(tenant=tenant, key=own, newest=newest)
            version = key_acts.acted(stub.CreateKeyVersion, request, name).moved.version.version
        moved = key_acts.changed(stub, name, tenant, own, version, pb.KEY_CHANGE_PUBLISH)
    key_acts.tell("publish", name, moved)


@click.command()
@key_acts.about_version
def activate(name: str, yes: bool, **options: Any) -> None:
    """Let a version sign: of several that are active, the newest does.

    Where policy demands that verifiers are ready it is refused until they have fetched it, unless
    no other version signs.
    """
    from capsign_wire.adapter.v1 import keys_pb2 as pb

    with key_acts.found(name, options) as (stub, key):
        version = key_acts.parts(name)[2] or key_acts.only("activate", name, key)
        whole = f"{key.key.tenant}/{key.key.name}/{version}"
        row = next((one for one in key.key.versions if one.version == version), None)
        text = f"{key_words.workloads(key)} sign with {whole} at once. {_seen(row)}"
        key_acts.confirm(text, f"Activate {whole}?", yes)
        moved = key_acts.changed(
            stub, name, key.key.tenant, key.key.name, version, pb.KEY_CHANGE_ACTIVATE
        )
    key_acts.tell("activate", name, moved)


def _waiting(key: keys_pb2.GetKeyResponse, name: str) -> int:
    """The newest version, if it was made and neither published nor used; 0: make one. Raises
    CliError for a key without versions, and if one is published already.
    """
    from capsign_wire.types.v1 import signing_pb2

    if not key.key.versions:
        text, advice = f"{name} has no version yet.", f"Create it: `capsign keys create {name}`."
        raise CliError(REFUSED, "NOTHING_TO_PUBLISH", text, advice)
    newest = key.key.versions[0]
    if newest.state != signing_pb2.KEY_STATE_PRE_ACTIVATION:
        return 0
    if newest.HasField("published_at"):
        text = f"Version {newest.version} of {name} is published and does not sign yet."
        advice = f"Let it sign: `capsign keys activate {name}/{newest.version}`."
        raise CliError(REFUSED, "PUBLISHED_ALREADY", text, advice)
    return newest.version


def _seen(version: admin_pb2.KeyVersion | None) -> str:
    """Since when verifiers can know it."""
    if version is None or not version.HasField("published_at"):
        return (
            "Its public keys were never shown: verifiers that keep older ones refuse it until they "
            "fetch again. `capsign keys publish` shows them first."
        )
    seconds = max(0, int(time.time() - version.published_at.ToMilliseconds() / 1000))
    return (
        f"Its public keys have been shown for {seconds} s; verifiers may keep older ones for a "
        "third of `rollouts.propagation`, at most a minute."
    )
