"""The kit's name server: a function from Services and EndpointSlices to answers."""

from __future__ import annotations

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from system.cluster.kit import names

SERVICES = [
    {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.3.4"}},
    {"metadata": {"name": "all", "namespace": "shop"}, "spec": {"clusterIP": "None"}},
    {
        "metadata": {"name": "outside", "namespace": "shop"},
        "spec": {"type": "ExternalName", "externalName": "elsewhere.test"},
    },
]
SLICES = [
    {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "all"}},
        "endpoints": [
            {"addresses": ["10.244.0.7"], "hostname": "all-0", "conditions": {"ready": True}},
            {"addresses": ["10.244.0.8"], "hostname": "all-1", "conditions": {"ready": False}},
        ],
    },
    {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {}}],
    },
]


def ask(name: str, kind: str = "A") -> tuple[int, list[str]]:
    zone = names.zone(SERVICES, SLICES, "cluster.local")
    reply = DNSRecord.parse(
        names.answer(DNSRecord.question(name, kind).pack(), zone, "cluster.local")
    )
    return reply.header.rcode, [str(record.rdata) for record in reply.rr if record.rtype == QTYPE.A]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web.shop.svc.cluster.local", ["10.96.3.4"]),
        ("WEB.shop.svc.cluster.local.", ["10.96.3.4"]),
        ("all.shop.svc.cluster.local", ["10.244.0.7"]),
        ("all-0.all.shop.svc.cluster.local", ["10.244.0.7"]),
    ],
)
def test_a_name_has_its_addresses(name, addresses):
    assert ask(name) == (RCODE.NOERROR, addresses)


@pytest.mark.parametrize(
    "name",
    [
        "nobody.shop.svc.cluster.local",
        "all-1.all.shop.svc.cluster.local",
        "outside.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.shop.svc.cluster.local",
        "web.shop.svc",
        "elsewhere.test",
    ],
)
def test_a_name_of_nobody_does_not_exist(name):
    assert ask(name) == (RCODE.NXDOMAIN, [])


@pytest.mark.parametrize(
    ("name", "kind"), [("web.shop.svc.cluster.local", "AAAA"), ("shop.svc.cluster.local", "A")]
)
def test_a_name_without_such_an_address_exists_and_is_empty(name, kind):
    assert ask(name, kind) == (RCODE.NOERROR, [])
