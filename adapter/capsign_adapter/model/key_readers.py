"""Who fetched the public keys of a key, and how new what was fetched is."""

from __future__ import annotations

from dataclasses import dataclass

ANONYMOUS = ""
"""The workload of fetches by HTTPS of which nothing is known but how many there were."""

BY_HTTPS = "https:"
"""Before the SPIFFE ID of who fetched by HTTPS and showed a certificate."""


@dataclass(frozen=True, slots=True)
class KeyReader:
    """One workload's fetches of the public keys of one grant. `workload` is a SPIFFE ID, one
    with BY_HTTPS before it, or ANONYMOUS.

    `version` is the newest version of the key in what it was given, `sequence` the newest
    revocation epoch that it was told, and `fetches` counts what it was given with that version in
    it. `fetched_ms` is its last fetch, milliseconds since 1970.
    """

    tenant: str
    key: str
    grant: str
    workload: str
    version: int
    sequence: int
    fetches: int
    fetched_ms: int
