"""The trust bundle in its ConfigMap: there, what the store says, and never an older one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from capsign_adapter.enrol.authority import Bundle
from capsign_adapter.enrol.cluster import ConfigMap
from capsign_adapter.enrol.publisher import KEY, SEQUENCE, BundlePublisher, pem_of, wants_writing
from capsign_wire.failures import FailureError
from capsign_wire.settings import SettingsError
from cryptography import x509
from support.svid_authority import SvidAuthority

OLD, NEW, FOREIGN = (SvidAuthority().certificate for _ in range(3))
NAME = ("capsign-system", "bundle")


def stored(bundle: Bundle) -> ConfigMap:
    return ConfigMap({KEY: pem_of(bundle.authorities)}, {SEQUENCE: str(bundle.sequence)}, "9")


@pytest.mark.parametrize(
    ("ours", "found", "writes"),
    [
        (Bundle(1, (OLD,)), None, True),
        (Bundle(1, (OLD,)), ConfigMap({}, {}, "1"), True),
        (Bundle(1, (OLD,)), stored(Bundle(1, (OLD,))), False),
        (Bundle(2, (OLD, NEW)), stored(Bundle(1, (OLD,))), True),
        (
            Bundle(1, (OLD,)),
            stored(Bundle(2, (OLD, FOREIGN))),
            True,
        ),  # ours is as new as the store: this was never ours
        (
            Bundle(1, (NEW,)),
            stored(Bundle(7, (FOREIGN,))),
            True,
        ),  # what another installation left behind
        (Bundle(2, (OLD, NEW)), ConfigMap({KEY: "edited by hand"}, {SEQUENCE: "2"}, "9"), True),
        (Bundle(2, (OLD,)), ConfigMap({KEY: pem_of((OLD,))}, {SEQUENCE: "9" * 5000}, "9"), True),
    ],
)
def test_when_ours_should_stand_there(ours, found, writes):
    assert wants_writing(ours, found) == writes


def test_it_writes_once_and_again_when_there_is_something_new(fake, cluster):
    authority = SvidAuthority()
    publisher = BundlePublisher(cluster, authority, "/".join(NAME))
    assert publisher.publish()
    assert not publisher.publish()
    pem = fake.config_maps[NAME]["data"][KEY]
    assert [each.subject for each in x509.load_pem_x509_certificates(pem.encode())]
    authority.sequence = 2
    assert publisher.publish()
    assert fake.config_maps[NAME]["metadata"]["annotations"][SEQUENCE] == "2"


def test_what_was_changed_by_hand_is_put_right(fake, cluster):
    publisher = BundlePublisher(cluster, SvidAuthority(), "/".join(NAME))
    publisher.publish()
    fake.config_maps[NAME]["data"][KEY] = ""
    assert publisher.publish()
    assert fake.config_maps[NAME]["data"][KEY].startswith("-----BEGIN CERTIFICATE-----")


@dataclass
class Replica:
    """One replica's view of the authorities, which are in a store that others share."""

    store: list[Bundle]
    seen: Bundle

    def refresh(self) -> None:
        self.seen = self.store[-1]

    def bundle(self) -> Bundle:
        return self.seen


def test_a_replica_that_lags_brings_no_older_bundle_back(fake, cluster):
    store = [Bundle(1, (OLD,))]
    leading, lagging = (Replica(store, store[0]) for _ in range(2))
    store.append(Bundle(2, (OLD, NEW)))
    assert BundlePublisher(cluster, leading, "/".join(NAME)).publish()
    assert not BundlePublisher(cluster, lagging, "/".join(NAME)).publish()
    assert fake.config_maps[NAME]["metadata"]["annotations"][SEQUENCE] == "2"


def test_two_replicas_at_the_same_time_leave_the_newer_bundle(fake, cluster):
    """The other prepares an authority and publishes between our look and our writing: the write is
    refused, and we look again.
    """
    store = [Bundle(1, (OLD,))]
    leading, lagging = (Replica(store, store[0]) for _ in range(2))
    other = BundlePublisher(cluster, leading, "/".join(NAME))
    other.publish()
    fake.config_maps[NAME]["data"][KEY] = "stale"

    class Overtaken:
        config_map = staticmethod(cluster.config_map)

        def write_config_map(self, *arguments):
            if len(store) == 1:
                store.append(Bundle(2, (OLD, NEW)))
                assert other.publish()
            return cluster.write_config_map(*arguments)

    assert not BundlePublisher(Overtaken(), lagging, "/".join(NAME)).publish()
    assert fake.config_maps[NAME]["metadata"]["annotations"][SEQUENCE] == "2"
    assert fake.config_maps[NAME]["data"][KEY] == pem_of(store[-1].authorities)


def test_an_authority_that_somebody_added_by_hand_goes_whatever_number_he_gave_it(fake, cluster):
    """It stood beside ours under a higher number, was taken for that of a newer replica, and pods
    trusted it for ever.
    """
    publisher = BundlePublisher(
        cluster, Replica([Bundle(1, (OLD,))], Bundle(1, (OLD,))), "/".join(NAME)
    )
    publisher.publish()
    fake.config_maps[NAME]["data"][KEY] = pem_of((OLD, FOREIGN))
    fake.config_maps[NAME]["metadata"]["annotations"][SEQUENCE] = "9"
    assert publisher.publish()
    assert fake.config_maps[NAME]["data"][KEY] == pem_of((OLD,))


def test_a_cluster_that_is_down_is_said_and_nothing_else_happens(fake, cluster):
    fake.misbehaviour = "500"
    with pytest.raises(FailureError):
        BundlePublisher(cluster, SvidAuthority(), "/".join(NAME)).publish()


@pytest.mark.parametrize("name", ["", "bundle", "/bundle", "a/b/c", "a/../b", "A/b"])
def test_what_names_no_config_map_is_refused_by_its_key(name):
    with pytest.raises(SettingsError) as caught:
        BundlePublisher(None, None, name)
    assert caught.value.key == "identity.kubernetes.bundle_config_map"
