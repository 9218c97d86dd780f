"""What a cluster's name server answers: a pure function of the Services and EndpointSlices that the
API server shows.

The names are those of the Kubernetes DNS specification (v1.1): a Service is its ClusterIP, a
headless one the addresses of its ready pods, and a pod of a headless Service with a hostname has a
name of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from dnslib import QTYPE, RCODE, RR, A, DNSRecord

TTL_S = 1
Zone = Mapping[str, frozenset[str]]


def zone(
    services: Iterable[Mapping[str, Any]], slices: Iterable[Mapping[str, Any]], domain: str
) -> Zone:
    """Addresses by lower-case name, without the last dot. A name with no address exists and is
    empty.
    """
    names: dict[str, set[str]] = defaultdict(set)
    headless = set()
    for service in services:
        name = full_name(service["metadata"]["name"], service, domain)
        address = service["spec"].get("clusterIP", "")
        if address == "None":
            headless.add(name)
            names[name] = set()
        elif address:
            names[name] = {address}
    for piece in slices:
        service_name = piece["metadata"].get("labels", {}).get("kubernetes.io/service-name", "")
        name = full_name(service_name, piece, domain)
        if name not in headless:
            continue
        for endpoint in piece.get("endpoints") or ():
            if not endpoint.get("conditions", {}).get("ready", True):
                continue
            names[name].update(endpoint["addresses"])
            if hostname := endpoint.get("hostname"):
                names[f"{hostname}.{name}"].update(endpoint["addresses"])
    return {name: frozenset(addresses) for name, addresses in names.items()}


def full_name(service: str, thing: Mapping[str, Any], domain: str) -> str:
    return f"{service}.{thing['metadata']['namespace']}.svc.{domain}"


def answer(query: bytes, known: Zone, domain: str) -> bytes:
    """A reply to one datagram. There is no world outside the cluster: every other name does not
    exist.
    """
    request = DNSRecord.parse(query)
    reply = request.reply()
    reply.header.ra = 1
    name = str(request.q.qname).rstrip(".").lower()
    addresses = known.get(name)
    if addresses is None:
        is_parent = any(other.endswith(f".{name}") for other in known)
        reply.header.rcode = RCODE.NOERROR if is_parent or name == domain else RCODE.NXDOMAIN
    elif QTYPE[request.q.qtype] in {"A", "ANY"}:
        for address in sorted(addresses):
            reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address), ttl=TTL_S))
    return reply.pack()
