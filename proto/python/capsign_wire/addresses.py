"""Parses host:port in the same way for every process. Pure.

gRPC accepts much that nobody intends: `host` listens on 443, `host:99999` on another port,
`unix:7443` is a file. Here a host is an IPv4 address, an IPv6 address in brackets (with IPv4 in its
last part, or a zone, if need be), or a DNS name, and has a port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET6, inet_ntop
from urllib.parse import quote

MAX_PORT = 65_535

_FORM = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*):(?P<port>[0-9]{1,5})", re.ASCII)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*{_LABEL}\.?")
_NUMBER = re.compile(r"(.*\.)?(0[xX][0-9A-Fa-f]*|[0-9]+)\.?")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
"""Name or number of an interface: 15 letters in Linux."""
_HTTPS = re.compile(
    r"https://(?P<host>\[[^\[\]]*\]|[^\[\]:/?#@\\]+)(:(?P<port>[0-9]{1,5}))?/?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Address:
    """`host` is without brackets, and empty for every address of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def listen(self) -> str:
        """For a gRPC server. All addresses are `[::]`, which takes IPv4 as well, and is IPv4 where
        there is no IPv6.
        """
        return _quoted(self) if self.host else f"[::]:{self.port}"

    @property
    def dial(self) -> str:
        """For a gRPC channel: never taken for another scheme, whatever the host is called."""
        return f"dns:///{_quoted(self)}"


def target(text: str) -> Address:
    """Parses an address to connect to. Raises ValueError, whose text is the end of a sentence that
    begins with the key or the option.
    """
    found = _read(text)
    if not found.host:
        raise ValueError(
            f"must name a host: {text!r} is every address of a machine, which one can "
            f"listen on and not connect to"
        )
    if not found.port:
        raise ValueError("must have a port from 1 to 65535")
    return found


def listener(text: str) -> Address:
    """Parses an address to listen on. No host, or `*`, is every address. Port 0 is any free one,
    and is accepted on the loopback only: elsewhere nobody would find it. Raises ValueError as
    `target` does.
    """
    found = _read(text)
    if not found.port and not _is_loopback(found.host):
        raise ValueError(
            "must have a port from 1 to 65535 (0, any free port, is for tests, on the loopback)"
        )
    return found


def https(url: str) -> Address:
    """Parses the server of an https URL without a path; port 443 if none is given. Raises
    ValueError as `target` does.
    """
    found = _HTTPS.fullmatch(url)
    if found is None:
        raise ValueError("must be https://host or https://host:port")
    return target(f"{found['host']}:{found['port'] or 443}")


def _read(text: str) -> Address:
    found = _FORM.fullmatch(text.removeprefix("*") if text.startswith("*:") else text)
    if found is None:
        raise ValueError(f"must be host:port, with an IPv6 address in brackets{_hint(text)}")
    host, port = found["host"], int(found["port"])
    if port > MAX_PORT:
        raise ValueError(f"must have a port of at most {MAX_PORT}")
    if host.startswith("["):
        return Address(_ipv6(host[1:-1]), port)
    # else `127.1` and `0x7f000001` would be addresses to one reader and names to another
    if host and _NUMBER.fullmatch(host):
        try:
            return Address(str(IPv4Address(host)), port)
        except ValueError:
            raise ValueError(
                f"must have four numbers from 0 to 255 in an IPv4 address, not {host!r}"
            ) from None
    if host and not _NAME.fullmatch(host):
        raise ValueError(f"must have an address or a DNS name before its port, not {host!r}")
    return Address(host, port)


def _ipv6(text: str) -> str:
    """Returns the spelling of inet_ntop(3): gRPC compares this text with the addresses in a
    certificate, so `fd00:0::1` would not match a certificate for fd00::1. A URI's `%25eth0` is
    `%eth0`.
    """
    number, percent, zone = text.partition("%")
    zone = zone.removeprefix("25") if len(zone) > 2 else zone
    try:
        address = IPv6Address(number)
    except ValueError:
        raise ValueError(f"must have an IPv6 address in its brackets, not {text!r}") from None
    number = inet_ntop(AF_INET6, address.packed)
    if not percent:
        return number
    if not _ZONE.fullmatch(zone) or not (
        address.is_link_local or address.is_multicast or address.is_loopback
    ):
        raise ValueError(
            f"must name an interface after %, and only of a link-local address, not {text!r}"
        )
    return f"{number}%{zone}"


def _hint(text: str) -> str:
    if "://" in text or text.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        return ", and without a scheme"
    return ", for example 10.0.0.1:7443 or adapter.example:7443"


def _is_loopback(host: str) -> bool:
    name = host.partition("%")[0]
    if ":" in name:
        address = IPv6Address(name)
        return (address.ipv4_mapped or address).is_loopback
    return host == "localhost" or (
        host[:1].isdigit() and _NUMBER.fullmatch(host) is not None and IPv4Address(host).is_loopback
    )


def _quoted(address: Address) -> str:
    """Returns the address for the brackets of a target, in which the `%` of a zone must be
    encoded.
    """
    return quote(str(address), safe="[]:")
