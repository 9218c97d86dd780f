"""Events as OCSF events (Open Cybersecurity Schema Framework), without I/O.

`metadata.uid` is the same each time an event is exported, so that a receiver can drop what it has.
What OCSF has no attribute for stands in `unmapped`, under the name that `capsign audit query` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from capsign_evidence.archive.events import AGENT, Event, described

from capsign_cli import __version__
from capsign_cli.audit.export_classes import (
    API,
    AUTHENTICATION,
    ENTITY,
    FINDING,
    LIFECYCLE,
    VERSION,
    Classified,
    classify,
)

_STATUS = {
    "done": (1, "Success"),
    "refused": (2, "Failure"),
    "never": (2, "Failure"),
    "unavailable": (2, "Failure"),
    "unknown": (0, "Unknown"),
}
_FINDING_STATUS = {1: (1, "New"), 3: (4, "Resolved")}

_MAPPED = frozenset(
    {"time", "time_ms", "outcome", "reason", "workload", "tenant", "key", "key_version"}
    | {"intent_id", "actor", "elapsed_ms", "since_ms", "pod_uid"}
)
"""Fields that OCSF has an attribute for; all others are unmapped."""


def uid_of(origin: str, event: Event) -> str:
    """What identifies an event for ever: the log, the leaf, and for what an agent recorded the
    number of the record in its life; for a further call that it tells of, behind a point which. A
    batch that cannot be read is one event.
    """
    if event.stream != AGENT:
        return f"{origin}/{event.index}"
    place = f".{event.place}" if event.place else ""
    return f"{origin}/{event.index}/{event.sequence or 'batch'}{place}"


def ocsf(origin: str, event: Event) -> dict[str, Any]:
    """The event as OCSF, for JSON. `origin` is the log's name."""
    found = classify(event)
    made: dict[str, Any] = {
        "metadata": _metadata(origin, event, found),
        "time": event.time_ms,
        "category_uid": found.of.category_uid,
        "category_name": found.of.category,
        "class_uid": found.of.uid,
        "class_name": found.of.name,
        "activity_id": found.activity,
        "activity_name": found.activity_name,
        "type_uid": found.type_uid,
        "type_name": found.type_name,
        "severity_id": int(found.severity),
        "severity": found.severity.name.capitalize(),
        **_status(event, found),
        **_OWN[found.of.uid](event, found),
        "unmapped": _unmapped(event),
    }
    if event.elapsed_ms:
        made["duration"] = event.elapsed_ms
    return made


def _metadata(origin: str, event: Event, found: Classified) -> dict[str, Any]:
    named = {
        "tenant_uid": event.tenant,
        "correlation_uid": _uuid(event.intent_id),
        "event_code": event.act or event.what,
    }
    return {
        "version": VERSION,
        "uid": uid_of(origin, event),
        "product": {"name": "capsign", "vendor_name": "capsign", "version": __version__},
        "log_name": origin,
        "log_provider": event.stream,
        **{name: value for name, value in named.items() if value},
    }


def _status(event: Event, found: Classified) -> dict[str, Any]:
    if found.of is FINDING:
        number, text = _FINDING_STATUS[found.activity]
    elif event.what == "intent":
        number, text = 99, "Begun"
    elif event.what.endswith("-refused"):
        number, text = _STATUS["refused"]
    else:
        number, text = _STATUS.get(event.outcome, (1, "Success"))
    made: dict[str, Any] = {"status_id": number, "status": text}
    code = event.reason or (event.outcome if event.outcome not in {"", "done"} else "")
    if code:
        made["status_code"] = code
    return made


def _api(event: Event, found: Classified) -> dict[str, Any]:
    made: dict[str, Any] = {
        "actor": _actor(event),
        "src_endpoint": _endpoint(event),
        "api": _call(event, found),
    }
    if event.key:
        made["resources"] = [_key(event)]
    return made


def _call(event: Event, found: Classified) -> dict[str, Any]:
    made: dict[str, Any] = {"operation": found.operation, "service": {"name": "capsign"}}
    if event.intent_id:
        made["request"] = {"uid": _uuid(event.intent_id)}
    if event.reason:
        made["response"] = {"error": event.reason}
    return made


def _authentication(event: Event, found: Classified) -> dict[str, Any]:
    return {
        "user": _service(event.workload),
        "service": {"name": "capsign"},
        "src_endpoint": _endpoint(event),
        "auth_protocol_id": 99,
        "auth_protocol": "SPIFFE X.509-SVID",
    }


def _entity(event: Event, found: Classified) -> dict[str, Any]:
    kind = {"rollout-step": "Rollout", "proposal": "Proposal"}.get(event.what)
    if event.key:
        named = _key(event)
        entity = {"name": named["name"], "uid": named["uid"], "version": named.get("version")}
        kind = kind or "Key"
    else:
        entity = {"name": event.target or "*", "uid": event.target or "*", "version": None}
        kind = kind or event.act.rpartition("-")[0] or "Deployment"
    present = {name: value for name, value in entity.items() if value}
    made: dict[str, Any] = {"entity": {**present, "type": kind, "type_id": 99}}
    if event.actor:
        made["actor"] = {"user": {"uid": event.actor, "name": event.actor, "type_id": 1}}
    return made


def _finding(event: Event, found: Classified) -> dict[str, Any]:
    """Found and ended have the same uid: a receiver closes what it opened."""
    subject = event.digest.hex() or event.boot_id.hex() or event.target or str(event.index)
    kind = event.subject or event.what
    info: dict[str, Any] = {
        "uid": f"{kind}:{event.workload}:{subject}",
        "title": kind.replace("-", " ").capitalize(),
        "types": [event.what],
        "analytic": {"name": f"capsign {event.what}", "type_id": 1, "type": "Rule"},
    }
    if event.since_ms:
        info["created_time"] = event.since_ms
    made: dict[str, Any] = {"finding_info": info}
    name = event.workload or event.target
    if name:
        made["resources"] = [{"name": name, "uid": name}]
    return made


def _lifecycle(event: Event, found: Classified) -> dict[str, Any]:
    return {"app": {"name": "capsign-agent", "vendor_name": "capsign", "uid": event.workload}}


_OWN: Mapping[int, Callable[[Event, Classified], dict[str, Any]]] = {
    API.uid: _api,
    AUTHENTICATION.uid: _authentication,
    ENTITY.uid: _entity,
    FINDING.uid: _finding,
    LIFECYCLE.uid: _lifecycle,
}
"""What only events of one class have."""


def _actor(event: Event) -> dict[str, Any]:
    if event.actor:
        return {"user": {"uid": event.actor, "name": event.actor, "type_id": 1}}
    return {"user": _service(event.workload)}


def _service(workload: str) -> dict[str, Any]:
    name = workload or "unknown"
    return {"uid": name, "name": name, "type_id": 4, "type": "Service"}


def _endpoint(event: Event) -> dict[str, Any]:
    made = {"svc_name": event.workload or event.actor or "unknown"}
    if event.pod_uid:
        made["instance_uid"] = _uuid(event.pod_uid)
    return made


def _key(event: Event) -> dict[str, Any]:
    made = {
        "name": event.key,
        "uid": "/".join(filter(None, (event.tenant, event.key))),
        "type": "signing key",
    }
    if event.key_version:
        made["version"] = str(event.key_version)
    return made


def _unmapped(event: Event) -> dict[str, Any]:
    return {name: value for name, value in described(event).items() if name not in _MAPPED}


def _uuid(value: bytes) -> str:
    return str(UUID(bytes=value)) if len(value) == 16 else value.hex()
