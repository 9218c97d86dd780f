from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from capsign_adapter.front.peer_address import address_of
from hypothesis import given
from hypothesis import strategies as st


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_ipv4_as_grpc_writes_it(address, port):
    assert address_of(f"ipv4:{address}:{port}") == address


NAT64 = IPv6Network("64:ff9b::/96")


@given(st.ip_addresses(v=6).filter(lambda one: one not in NAT64), st.integers(1, 65535))
def test_ipv6_as_grpc_writes_it(address, port):
    assert address_of(f"ipv6:%5B{address}%5D:{port}") == (address.ipv4_mapped or address)


@given(st.ip_addresses(v=4), st.integers(1, 65535))
def test_an_address_behind_nat64_is_the_one_that_it_stands_for(address, port):
    assert address_of(f"ipv6:%5B{NAT64[int(address)]}%5D:{port}") == address


def test_ipv4_in_ipv6_dress_is_ipv4():
    assert address_of("ipv6:%5B::ffff:10.1.2.3%5D:4000") == IPv4Address("10.1.2.3")


def test_a_zone_is_no_part_of_an_address():
    assert address_of("ipv6:%5Bfe80::1%25eth0%5D:4000") == IPv6Address("fe80::1")


@pytest.mark.parametrize(
    "peer",
    [
        "",
        "unix:",
        "unix:/run/x",
        "ipv4:",
        "ipv4:1.2.3:4",
        "ipv4:localhost:1",
        "ipv6:::1:5",
        "ipv6:%5B::1:5",
        "ipv5:1.2.3.4:5",
    ],
)
def test_what_is_no_address_is_none(peer):
    assert address_of(peer) is None


@given(st.text(max_size=80))
def test_no_text_breaks_it(text):
    for peer in (text, f"ipv4:{text}", f"ipv6:{text}", f"ipv6:%5B{text}%5D:1"):
        address_of(peer)
