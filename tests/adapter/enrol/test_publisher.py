"""The trust bundle in its ConfigMap: there, current, and never an older one."""

from __future__ import annotations

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
    return ConfigMap({KEY: pem_of(bundle)}, {SEQUENCE: str(bundle.sequence)}, "9")


@pytest.mark.parametrize(
    ("ours", "found", "writes"),
    [
        (Bundle(1, (OLD,)), None, True),
        (Bundle(1, (OLD,)), ConfigMap({}, {}, "1"), True),
        (Bundle(1, (OLD,)), stored(Bundle(1, (OLD,))), False),
        (Bundle(2, (OLD, NEW)), stored(Bundle(1, (OLD,))), True),
        (Bundle(1, (OLD,)), stored(Bundle(2, (OLD, NEW))), False),  # this replica lags
        (Bundle(2, (OLD, NEW)), stored(Bundle(3, (NEW,))), False),
        (Bundle(1, (NEW,)), stored(Bundle(7, (FOREIGN,))), True),  # what another installation left behind
        (Bundle(2, (OLD, NEW)), ConfigMap({KEY: "edited by hand"}, {SEQUENCE: "2"}, "9"), True),
        (Bundle(2, (OLD,)), ConfigMap({KEY: pem_of(Bundle(2, (OLD,)))}, {SEQUENCE: "9" * 5000}, "9"), True),
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


def test_two_replicas_at_the_same_time_leave_the_newer_bundle(fake, cluster):
    """The other writes between our look and our writing: what we then see is ahead of us, and stays."""
    lagging, leading = SvidAuthority(), SvidAuthority()
    leading.certificate, leading.sequence = lagging.certificate, 2
    other = BundlePublisher(cluster, leading, "/".join(NAME))
    BundlePublisher(cluster, lagging, "/".join(NAME)).publish()
    fake.config_maps[NAME]["data"][KEY] = "stale"

    class Overtaken:
        def config_map(self, namespace, name):
            found = cluster.config_map(namespace, name)
            other.publish()
            return found

        write_config_map = staticmethod(cluster.write_config_map)

    assert not BundlePublisher(Overtaken(), lagging, "/".join(NAME)).publish()
    assert fake.config_maps[NAME]["metadata"]["annotations"][SEQUENCE] == "2"


def test_a_cluster_that_is_down_is_said_and_nothing_else_happens(fake, cluster):
    fake.misbehaviour = "500"
    with pytest.raises(FailureError):
        BundlePublisher(cluster, SvidAuthority(), "/".join(NAME)).publish()


@pytest.mark.parametrize("name", ["", "bundle", "/bundle", "a/b/c", "a/../b", "A/b"])
def test_what_names_no_config_map_is_refused_by_its_key(name):
    with pytest.raises(SettingsError) as caught:
        BundlePublisher(None, None, name)
    assert caught.value.key == "identity.kubernetes.bundle_config_map"
