"""`capsign-adapter authority`: who signs identities, who is trusted, what happens when, and having
the next one made now.

It works on store and token directly, beside adapters that serve: they see the rows at their next
look.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide import authority_schedule
from capsign_adapter.decide.authority_schedule import Action, Lifetimes
from capsign_adapter.enrol import roll
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.store.interfaces.authorities import Authorities
from capsign_adapter.token.interface import Token

WORDS = {
    Action.PREPARE: "a successor is made and published",
    Action.ACTIVATE: "signs from then on",
    Action.RETIRE: "leaves the bundle, when nothing that it signed is valid any more",
}

_TIMES = ("published", "active", "signed_until", "retired", "expires")


def rotate(token: Token, store: Authorities, realm: Realm, now_ms: int) -> AuthorityRow:
    """Make and publish the next authority now.

    Raises FailureError ILLEGAL_TRANSITION while one follows another, or where there is none yet;
    otherwise as `roll.prepare`.
    """
    rows = store.authorities()
    if authority_schedule.under_way(rows):
        waiting = authority_schedule.next_step(rows, realm.lifetimes, now_ms)
        when = f" The next step is at {moment(waiting.at_ms)}." if waiting is not None else ""
        detail = (
            f"One authority is following another already; only one does at a time.{when} See "
            f"`authority status`."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    if not rows:
        detail = (
            "There is no authority yet. Run `capsign-adapter provision` with the section "
            "[identity]."
        )
        raise FailureError(failures_pb2.REASON_ILLEGAL_TRANSITION, detail)
    return roll.prepare(rows, token, store, realm, now_ms)


def status(store: Authorities, lifetimes: Lifetimes, now_ms: int) -> dict[str, Any]:
    """Everything that is known, for JSON: times as RFC 3339 in UTC, what has not happened left
    out.
    """
    rows = store.authorities()
    signer = authority_schedule.signing(rows, now_ms)
    return {
        "now": moment(now_ms),
        "bundle_sequence": authority_schedule.sequence(rows),
        "signing": signer.version if signer is not None else None,
        "authorities": [_described(row) for row in rows],
        "next": [_step(step) for step in authority_schedule.timeline(rows, lifetimes)],
    }


def shown(found: dict[str, Any]) -> str:
    """The status for a person."""
    signing = found["signing"]
    lines = [f"Authority {signing} signs." if signing is not None else "No authority can sign."]
    lines += [f"Bundle {found['bundle_sequence']} at {found['now']}:"]
    for row in found["authorities"]:
        times = ", ".join(f"{name} {row[name]}" for name in _TIMES if name in row)
        lines.append(f"  {row['version']:>3}  {row['state']:<8}  {times}")
    lines += ["Next:"] if found["next"] else []
    for step in found["next"]:
        lines.append(
            f"  {step['at']}  "
            + (f"authority {step['authority']} " if step["authority"] else "")
            + step["what"]
        )
    return "\n".join(lines)


def as_json(found: dict[str, Any]) -> str:
    """The status for a program."""
    return json.dumps(found, indent=2)


def moment(at_ms: int) -> str:
    """A time as RFC 3339, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _described(row: AuthorityRow) -> dict[str, Any]:
    times = dict(
        zip(
            _TIMES,
            (row.created_ms, row.activated_ms, row.signed_until_ms, row.retired_ms, row.expires_ms),
            strict=True,
        )
    )
    return {
        "version": row.version,
        "state": row.state.name.lower(),
        "key": row.label,
        **{name: moment(at_ms) for name, at_ms in times.items() if at_ms},
    }


def _step(step: authority_schedule.Step) -> dict[str, Any]:
    return {
        "at": moment(step.at_ms),
        "step": step.action.value,
        "authority": step.row.version if step.row is not None else None,
        "what": WORDS[step.action],
    }
