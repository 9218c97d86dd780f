"""Keepers against an API server that behaves: they agree, lose nothing to conflicts and lost
answers, and never overreach.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from capsign_injector import server_settings
from capsign_injector.certificate import certificates, secret_data
from capsign_injector.certificate.cluster import ROTATE_ANNOTATION, Cluster, ClusterError
from capsign_injector.certificate.keeper import CertificateKeeper
from capsign_injector.certificate.secret_data import StoredError
from capsign_injector.certificate.tls import ServingTls
from support.fake_kube_objects import FakeKube, running


class World:
    """One API server, a clock that tests move, and replicas."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))
        self.settings = server_settings.Server(propagation_s=600, look_s=30)
        self.kube = FakeKube(self.settings, lambda: self.now)
        self.access: dict[str, str] = {}
        self.served: list[ServingTls] = []
        """What each replica answers handshakes with."""

    def keeper(self, **changes: object) -> CertificateKeeper:
        import msgspec

        settings = msgspec.structs.replace(self.settings, **self.access, **changes)
        self.served.append(ServingTls())
        return CertificateKeeper(
            settings, Cluster(settings), self.served[-1], clock=lambda: self.now
        )


@pytest.fixture
async def world(tmp_path):
    made = World()
    async with running(made.kube, tmp_path) as access:
        made.access = access
        yield made
    assert not made.kube.refused, (
        "the role of the chart allows no more than get and update of two objects"
    )


def trusted(world: World) -> list[frozenset[bytes]]:
    return [
        frozenset(one.der for one in certificates.read_all(bundle))
        for bundle in world.kube.bundles()
    ]


async def test_a_first_replica_makes_stores_publishes_and_is_ready(world):
    keeper = world.keeper()
    assert keeper.fault() == "There is no serving certificate: it has not been looked at yet."
    await keeper.look()
    assert keeper.fault() is None
    stored = secret_data.decode(world.kube.data())
    assert stored is not None
    assert trusted(world) == [frozenset({certificates.read(stored.authority.certificate).der})] * 2
    assert world.kube.objects["secrets"]["metadata"]["labels"], "what the chart wrote is kept"
    writes = list(world.kube.writes)
    await keeper.look()
    assert world.kube.writes == writes, "nothing is due, nothing is written"


@pytest.mark.parametrize("replicas", [2, 5])
async def test_replicas_that_start_at_once_agree(world, replicas):
    """Each has read both objects before any writes, so all but one lose each write."""
    waiting, everybody = 0, asyncio.Event()

    async def hold(method: str, kind: str) -> None:
        nonlocal waiting
        if method == "PUT" and not everybody.is_set():
            waiting += 1
            if waiting == replicas:
                everybody.set()
            await everybody.wait()

    world.kube.before = hold
    keepers = [world.keeper() for _ in range(replicas)]
    await asyncio.gather(*(one.look() for one in keepers))
    await asyncio.gather(*(one.look() for one in keepers))
    assert world.kube.conflicts >= replicas - 1
    assert [one.fault() for one in keepers] == [None] * replicas
    assert len({tls.pair for tls in world.served}) == 1
    assert len(trusted(world)[0]) == 1


@pytest.mark.parametrize("call", ["PUT secrets", "PUT webhooks"])
async def test_a_write_whose_answer_is_lost_is_found_done(world, call):
    """It failed but happened: the next look finds its own work and makes no second authority."""
    world.kube.lost.add(call)
    keeper = world.keeper()
    with pytest.raises(ClusterError):
        await keeper.look()
    stored = world.kube.data()["ca.crt"]
    await keeper.look()
    assert keeper.fault() is None
    assert world.kube.data()["ca.crt"] == stored


@pytest.mark.parametrize("call", ["GET secrets", "PUT secrets", "GET webhooks", "PUT webhooks"])
async def test_a_right_that_is_missing_is_named(world, call):
    world.kube.forbidden.add(call)
    keeper = world.keeper()
    with pytest.raises(ClusterError, match=r"needs `(get|update)` on it"):
        await keeper.look()
    assert keeper.fault() is not None
    world.kube.forbidden.clear()
    await keeper.look()
    assert keeper.fault() is None


async def test_a_webhook_configuration_that_is_missing_is_not_made_and_no_secret_either(world):
    """An uninstallation deletes both, while replicas still run: what they made again then would be
    in the way of the next one.
    """
    world.kube.objects["secrets"] = None
    kept, world.kube.objects["webhooks"] = world.kube.objects["webhooks"], None
    with pytest.raises(ClusterError, match=r"`helm upgrade --install` makes it anew"):
        await world.keeper().look()
    assert world.kube.objects["secrets"] is None
    world.kube.objects["webhooks"] = kept
    await world.keeper().look()


async def test_a_secret_that_somebody_deletes_is_made_anew_at_once(world):
    """It was never made again. Replicas served on with what they held; weeks later the certificate
    had ended, and with it the creation of every labelled pod.
    """
    notes = {"meta.helm.sh/release-name": "capsign", "x": "y"}
    labels = {"app.kubernetes.io/managed-by": "Helm", "helm.sh/chart": "capsign-0.2.0"}
    world.kube.edit(
        "webhooks", lambda one: one["metadata"].update(annotations=notes, labels=labels)
    )
    serving, other = world.keeper(), world.keeper()
    await serving.look()
    await other.look()
    before = world.kube.data()["ca.crt"]
    world.kube.objects["secrets"] = None
    await serving.look()
    await other.look()
    assert world.kube.data()["ca.crt"] == before, (
        "who serves puts its own back: nobody's trust breaks"
    )
    assert world.kube.objects["secrets"]["metadata"]["annotations"] == {
        "meta.helm.sh/release-name": "capsign"
    }
    # Of a label that the next version changes the injector would be the owner, and Helm's apply
    # would end in a conflict.
    assert world.kube.objects["secrets"]["metadata"]["labels"] == {
        "app.kubernetes.io/managed-by": "Helm"
    }
    assert (serving.fault(), other.fault()) == (None, None)
    assert world.kube.refused == []


async def test_the_right_to_make_the_secret_is_named_where_it_is_missing(world):
    world.kube.objects["secrets"] = None
    world.kube.forbidden.add("POST secrets")
    with pytest.raises(ClusterError, match="needs `create` on it"):
        await world.keeper().look()
    assert len(world.kube.refused) == 1
    world.kube.refused.clear()  # as it was meant to be


async def rotate(world: World, *keepers: CertificateKeeper) -> None:
    """Let time pass until a rotation that is due is over, looking as often as a replica does."""
    for _ in range(60):
        world.now += 30
        for keeper in keepers:
            await keeper.look()


async def test_a_rotation_asked_for_overlaps_and_ends(world):
    first, second = world.keeper(), world.keeper()
    await first.look()
    await second.look()
    before = world.kube.data()["ca.crt"]
    world.kube.edit(
        "secrets",
        lambda secret: (
            secret["metadata"].setdefault("annotations", {}).update({ROTATE_ANNOTATION: "today"})
        ),
    )
    begun = len(world.kube.history)
    await rotate(world, first, second)
    after = world.kube.data()
    assert after["ca.crt"] != before
    assert set(after) == {"format", "rotation", "tls.crt", "tls.key", "ca.crt", "ca.key"}, (
        "nothing of the old one is left"
    )
    (published, both), (retired, one) = world.kube.history[begun:]
    assert (len(both), len(one)) == (2, 1)
    assert retired - published >= 2 * world.settings.propagation_s
    assert first.fault() is None
    assert second.fault() is None


async def test_a_year_passes_with_replicas_in_turn(world):
    """Leaves are renewed by one authority, authorities come and go, and at each look all that is
    served is trusted.
    """
    keepers = [world.keeper() for _ in range(2)]
    seen = set()
    for step in range(120):
        world.now += 4 * 86_400
        for _ in range(3):
            await keepers[step % 2].look()
            world.now += 700
        assert keepers[step % 2].fault() is None
        seen.add((world.kube.data()["ca.crt"], world.kube.data()["tls.crt"]))
    assert len({authority for authority, _ in seen}) == 2, (
        "two thirds of a year and once more is 486 days"
    )
    assert 20 <= len(seen) <= 28, "every 20 days"


async def test_a_replica_that_is_cut_off_serves_on_and_says_when_it_may_be_behind(world):
    keeper = world.keeper()
    await keeper.look()
    world.kube.forbidden.update({"GET secrets", "GET webhooks"})
    with pytest.raises(ClusterError):
        await keeper.look()
    assert keeper.fault() is None
    world.now += 2 * world.settings.propagation_s - 1
    assert keeper.fault() is None
    world.now += 1
    assert "other replicas may have moved on" in str(keeper.fault())
    world.kube.forbidden.clear()
    await keeper.look()
    assert keeper.fault() is None


async def test_an_emptied_secret_is_refilled_by_who_serves(world):
    serving, fresh = world.keeper(), world.keeper()
    await serving.look()
    before = world.kube.data()["ca.crt"]
    world.kube.edit("secrets", lambda secret: secret.pop("data"))
    await fresh.look()
    assert not world.kube.data(), "a replica that serves nothing waits for one that does"
    await serving.look()
    assert world.kube.data()["ca.crt"] == before
    assert "next-ca.crt" in world.kube.data(), "and a new authority is on its way"


async def test_an_emptied_secret_that_nobody_can_refill_gets_a_new_authority(world):
    await world.keeper().look()
    world.kube.edit("secrets", lambda secret: secret.pop("data"))
    fresh = world.keeper()
    await fresh.look()
    assert fresh.fault() is not None
    world.now += 2 * world.settings.look_s
    await fresh.look()
    assert fresh.fault() is None


async def test_what_is_not_understood_is_not_overwritten(world):
    keeper = world.keeper()
    await keeper.look()
    world.kube.edit("secrets", lambda secret: secret["data"].update({"format": "Mg=="}))
    before = world.kube.data()
    with pytest.raises(StoredError, match="its format is not 1"):
        await keeper.look()
    assert world.kube.data() == before
    assert keeper.fault() is None, "it serves with what it has"


async def test_two_versions_with_other_names_do_not_quarrel(world):
    old, new = world.keeper(), world.keeper(further_names=("injector.example",))
    await old.look()
    for _ in range(3):
        await new.look()
        await old.look()
    writes = len(world.kube.writes)
    names = certificates.read(world.kube.data()["tls.crt"]).names
    assert names == {"capsign-injector.capsign-system.svc", "injector.example"}
    await new.look()
    await old.look()
    assert len(world.kube.writes) == writes


async def test_a_keeper_goes_on_after_failures(world):
    """`run` outlives a cluster that refuses, and a cluster that is wrong."""
    world.kube.objects["webhooks"]["metadata"]["resourceVersion"] = ""
    keeper = world.keeper(look_s=1, propagation_s=10)
    running_keeper = asyncio.create_task(keeper.run())
    try:
        while "not the object that was asked for" not in str(keeper.fault()):  # noqa: ASYNC110 - a keeper has no event
            await asyncio.sleep(0.01)
        world.kube.objects["webhooks"]["metadata"]["resourceVersion"] = "1"
        while keeper.fault() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    finally:
        running_keeper.cancel()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("secrets", lambda one: one.update(data={"tls.crt": "not base64"})),
        ("secrets", lambda one: one["metadata"].update(annotations=["capsign.dev/rotate"])),
        ("webhooks", lambda one: one["webhooks"][0].update(clientConfig=["service"])),
        ("webhooks", lambda one: one["webhooks"][0]["clientConfig"].update(caBundle="not base64")),
    ],
    ids=["data", "annotations", "client config", "bundle"],
)
async def test_an_object_of_another_shape_is_a_sentence_and_ends_no_keeper(world, kind, change):
    """What is behind the address of an API server may be no API server. The keeper ended with it,
    and the process after it.
    """
    present = world.kube.objects[kind]
    assert present is not None
    change(present)
    with pytest.raises(ClusterError, match="is not the object that was asked for"):
        await world.keeper().look()


async def test_no_proxy_of_the_environment_is_asked(world, monkeypatch):
    """The API server is in the cluster, and the proxy of a node's environment leads out of it
    (decision 26).
    """
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    keeper = world.keeper()
    await keeper.look()
    assert keeper.fault() is None
