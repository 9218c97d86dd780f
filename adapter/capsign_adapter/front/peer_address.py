"""The address at the other end of a connection, as gRPC writes it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from urllib.parse import unquote

from capsign_adapter.decide.enrolment import Address, plain


def address_of(peer: str) -> Address | None:
    """Returns the address in `ServicerContext.peer()`, which is "ipv4:1.2.3.4:567" or
    "ipv6:%5B::1%5D:567"; None for anything else.
    """
    family, _, rest = peer.partition(":")
    host, _, _ = unquote(rest).rpartition(":")
    try:
        if family == "ipv4":
            return IPv4Address(host)
        if family == "ipv6" and host.startswith("[") and host.endswith("]"):
            return plain(IPv6Address(host[1:-1]))
    except ValueError:
        return None
    return None
