"""A store that went back to yesterday's copy, beside a token that did not: no version, activation
epoch, kid or context that was used meanwhile is given a second time (decision 82).

Nothing else tells this adapter that the copy is old: there is no file of the last checkpoint, and
no witness. With either it does not start (`tests/adapter/sign/test_checkpoints.py`).
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from capsign_adapter.provisioning import provision_all
from capsign_adapter.sign.clock import now_ms
from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire.adapter.v1 import signing_pb2 as pb
from capsign_wire.intents import new_intent_id
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import signing_pb2
from support.adapter_rig import APPROVER, OPERATOR, POLICY, AdapterRig, peer
from support.key_calls import People, eventually
from support.replica import RunningReplica

ALGORITHMS = (algorithms.ALGORITHM_ED25519, algorithms.ALGORITHM_ES256, algorithms.ALGORITHM_HS256)

SOON = POLICY.replace("tls:", "approvals: {destroy_wait: 1s}\ntls:")


class Used(NamedTuple):
    """What is in the world once a version has signed."""

    versions: set[Any]
    epochs: set[Any]
    kids: set[Any]
    contexts: set[Any]

    def twice(self, other: Used) -> list[object]:
        """What both have."""
        return [each for one, two in zip(self, other, strict=True) for each in one & two]


def on(rig: AdapterRig, url: str) -> AdapterRig:
    """The same token with the store at `url`."""
    rig.url = url
    return rig.beside()


def rotated(rig: AdapterRig, directory: Path, *, destroyed: bool = False) -> Used:
    """Make, publish and activate one more version, sign with it, and perhaps destroy it; what that
    has used.
    """
    directory.mkdir()
    replica = RunningReplica(directory, rig)
    try:
        with replica.as_(OPERATOR) as channel:
            people = People(channel)
            made = people.make().version.version
            people.move("publish", made)
            people.move("activate", made)
        rig.snapshots.refresh()
        kids = {signed(rig, algorithm, made) for algorithm in ALGORITHMS}
        (row,) = [one for one in rig.store.key_versions() if one.version == made]
        contexts = {
            one.group.context_digest
            for one in map(decode, rig.entries())
            if isinstance(one, Signed) and one.group.key_version == made
        }
        if destroyed:
            destroy(replica, made)
    finally:
        replica.stop()
    assert len(contexts) == len(kids) == len(ALGORITHMS)
    return Used({made}, {row.activation_epoch}, kids, contexts)


def destroy(replica: RunningReplica, version: int) -> None:
    """As two people do, until the token holds none of it."""
    with replica.as_(OPERATOR) as one, replica.as_(APPROVER) as two:
        operator = People(one)
        operator.move("deactivate", version)
        People(two).approve(operator.propose_destruction(version))
        assert eventually(lambda: operator.version(version).HasField("gone_at"))


def signed(rig: AdapterRig, algorithm, version: int) -> str:
    """Sign once under that version; the kid."""
    group = pb.SignGroup(
        algorithm=algorithm,
        context=signing_pb2.ContextSuffix(role="issuer"),
        items=[pb.SignItem(intent_id=new_intent_id(), input=bytes(32))],
    )
    request = pb.SignRequest(batch_id=1, handles=[rig.handle()], groups=[group])
    answer = rig.pipeline.run(peer(), request, rig.barrier.ticket(lambda: None)).groups[0]
    (by,) = answer.signed_by
    assert by.version == version
    return by.kid


def test_what_was_made_and_used_since_the_copy_is_not_given_again(place, copied, tmp_path):
    first = AdapterRig(tmp_path / "rig", POLICY, place.url, place.password_file)
    yesterday = copied()
    used = rotated(first, tmp_path / "today")
    again = rotated(on(first, yesterday.url), tmp_path / "restored")
    assert again.versions == {3}
    assert used.twice(again) == []


def test_nor_what_was_destroyed_since_the_copy(place, copied, tmp_path):
    """The token has no key of that number any more, and its number all the same."""
    first = AdapterRig(tmp_path / "rig", SOON, place.url, place.password_file)
    yesterday = copied()
    used = rotated(first, tmp_path / "today", destroyed=True)
    again = rotated(on(first, yesterday.url), tmp_path / "restored")
    assert again.versions == {3}
    assert used.twice(again) == []


def test_nor_by_a_store_of_before_the_key(place, copied, tmp_path):
    """It has no version at all, and the first one signs at once."""
    empty = copied()
    first = AdapterRig(tmp_path / "rig", POLICY, place.url, place.password_file)
    kids = {signed(first, algorithm, 1) for algorithm in ALGORITHMS}
    first.close()
    with closing(empty.open()) as store:
        provision_all(first.policy, first.token.beside(), store, now_ms())
    with closing(on(first, empty.url)) as restored:
        (row,) = [one for one in restored.store.key_versions() if one.key == "orders"]
        assert (row.version, row.activation_epoch) == (2, 2)
        assert not kids & {signed(restored, algorithm, 2) for algorithm in ALGORITHMS}
