"""What summaries of tiles have no terms for, and where a query looks for it.

What the target of an act means was read of fewer acts when the first summaries were made. Stores
and files hold those, and `capsign audit verify` makes them again: so the terms stay what they are,
and who asks for a key is also shown to the tiles that have one of these acts at all, which are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from capsign_evidence.archive.details import STAGES
from capsign_evidence.archive.events import Event

_LIFTED = ("admin", "act", ("revocation-lifted", "everything-revoked"))
_OF_TENANTS = ("admin", "act", ("tenant-erased", "pepper-gone"))
_PROPOSED = ("proposal", "subject", ("revocation-lift", "tenant-erase"))
_REFUSED = ("admin", "act", ("rollout-move-refused",))
_WHOLE_TENANT = ("admin", "act", ("tenant-revoked",))

OTHERWISE: Mapping[str, tuple[tuple[str, str, tuple[str, ...]], ...]] = MappingProxyType(
    {
        "tenant": (
            *(_LIFTED, _OF_TENANTS, _PROPOSED, _REFUSED),
            ("admin", "act", ("commitments-told",)),
        ),
        "key": (_LIFTED, _OF_TENANTS, _PROPOSED, _REFUSED, _WHOLE_TENANT),
        "version": (
            *(_LIFTED, _OF_TENANTS, _PROPOSED, _WHOLE_TENANT),
            ("admin", "act", ("key-revoked",)),
        ),
        "workload": (_LIFTED, _PROPOSED),
        "grant": (_LIFTED, _PROPOSED),
        "handle": (_LIFTED, _PROPOSED, ("admin", "act", ("handle-revoked",))),
        "signature": (("admin", "act", ("signature-reported",)),),
        "subject": (("rollout-step", "what", ("rollout-step",)),),
    }
)
"""Where else to look for what a condition is on: the kind of an entry, and values of a field of it.
Summaries have no terms for what these entries' targets mean: those that stores and files hold stay
what they are.
"""

_TOLD_OTHERWISE = frozenset(
    (what, value)
    for rows in OTHERWISE.values()
    for what, _, values in rows
    for value in values
    if value not in {"everything-revoked", "tenant-revoked", "key-revoked"}
)
"""What has no terms for what its target means."""


def with_terms(event: Event) -> Event:
    """The event with only what summaries have terms for."""
    if event.what == "rollout-step":
        return replace(event, subject=str(_STAGES.get(event.subject, event.subject)))
    if (event.what, event.act if event.what == "admin" else event.subject) in _TOLD_OTHERWISE:
        return replace(
            event,
            tenant="",
            key="",
            key_version=0,
            workload="",
            grant="",
            handle_serial=b"",
            signature_hash=b"",
        )
    return event


_STAGES = {word: number for number, word in STAGES.items()}
