"""Made-up timelines: a day of a deployment, with what a responder looks for in it."""

from __future__ import annotations

import hashlib
import random

from capsign_cli.audit.timeline_data import Row, Timeline

START = 1_795_910_400_000
"""2026-11-29T00:00:00Z."""
DAY = 86_400_000
MISUSE_AT = START + 3 * 3_600_000
WORKLOADS = [
    f"spiffe://prod.example/ns/{name}/sa/{name}-api"
    for name in (
        *("orders", "payments", "billing", "ledger", "identity", "gateway", "release", "search"),
        *("invoices", "refunds", "exports", "reports", "mail", "batch", "edge", "mobile", "web"),
    )
]
KEYS = ("access-tokens", "webhooks", "invoices", "releases", "receipts")
HOSTILE = '</script><img src=x onerror="document.title=1">'
OPERATOR = "spiffe://prod.example/people/ada"


def digest(number: int, what: str) -> bytes:
    return hashlib.sha256(f"{what} {number}".encode()).digest()


def signed(number: int, time_ms: int, who: str, key: str, **texts: str) -> Row:
    fields = {
        "what": "signed",
        "workload": who,
        "tenant": "acme",
        "key": key,
        "version": "3" if time_ms > START + DAY // 2 else "2",
        "algorithm": "Ed25519",
        "purpose": "access-token",
        "grant": f"{key}-sign",
        "outcome": "done",
        "stream": "adapter",
    }
    hashes = digest(number, "intent")[:16], digest(number, "commitment"), digest(number, "sig")
    return Row(time_ms, number, "signed", {**fields, **texts}, *hashes)


def refused(number: int, time_ms: int, who: str, key: str, reason: str) -> Row:
    row = signed(number, time_ms, who, key)
    texts = {**row.texts, "what": "refused", "outcome": "refused", "reason": reason}
    return Row(time_ms, number, "refused", texts, row.intent, row.commitment)


def act(number: int, time_ms: int, group: str, what: str, **texts: str) -> Row:
    fields = {"what": what, "actor": OPERATOR, "stream": "adapter", "tenant": "acme"}
    return Row(time_ms, number, group, {**fields, **texts})


def _marked() -> list[tuple[int, str, str, dict[str, str]]]:
    hour = DAY // 24
    steps = ("started", "propagates", "canary", "widened", "promoted", "done")
    rollout = [
        (START + 9 * hour + step * hour // 2, "rollout", f"rollout-{name}", {"key": KEYS[0]})
        for step, name in enumerate(steps)
    ]
    return [
        (START + hour, "act", "policy-applied", {"target": "policy/41"}),
        (MISUSE_AT, "incident", "signed-not-reported", {"workload": WORKLOADS[1], "detail": "14"}),
        (MISUSE_AT + 240_000, "revocation", "grant-revoked", {"target": "webhooks-sign"}),
        (MISUSE_AT + 300_000, "revocation", "key-version-revoked", {"target": "acme/webhooks/2"}),
        (MISUSE_AT + 900_000, "act", "key-created", {"key": "webhooks", "version": "3"}),
        *rollout,
        (START + 20 * hour, "incident", "silence", {"workload": WORKLOADS[3]}),
    ]


def made_up(count: int = 2_000, seed: int = 1, *, hostile: bool = True) -> Timeline:
    """A day with about this many rows, the busier by day, with a misuse at three in the night."""
    chance = random.Random(seed)
    times: list[tuple[int, str, str, dict[str, str]]] = []
    for _ in range(count):
        hour = min(max(chance.gauss(14, 5), 0), 23.99)
        times.append((START + int(hour * DAY / 24), "signed", "", {}))
    times += [(MISUSE_AT + step * 700, "signed", "misuse", {}) for step in range(count // 50)]
    times += _marked()
    times.sort(key=lambda one: one[0])
    rows: list[Row] = []
    weights = [1 / (place + 1) for place in range(len(WORKLOADS))]
    for number, (time_ms, group, what, texts) in enumerate(times):
        (who,) = chance.choices(WORKLOADS, weights)
        if group != "signed":
            rows.append(act(number, time_ms, group, what, **texts))
        elif what == "misuse":
            rows.append(signed(number, time_ms, WORKLOADS[1], "webhooks", caller="worker"))
        elif chance.random() < 0.03:
            reason = chance.choice(("RATE_LIMITED", "HANDLE_EXPIRED", "PURPOSE_MISMATCH"))
            rows.append(refused(number, time_ms, who, chance.choice(KEYS), reason))
        elif chance.random() < 0.01:
            texts = {"what": "batch", "workload": who, "stream": "agent"}
            rows.append(Row(time_ms, number, "record", texts))
        else:
            rows.append(signed(number, time_ms, who, chance.choice(KEYS)))
    if hostile and rows:
        rows[-1] = act(rows[-1].leaf, rows[-1].time_ms, "act", HOSTILE, target=HOSTILE)
    return Timeline(
        origin="prod.example/capsign",
        size=len(rows),
        checkpoint="prod.example/capsign\n40\nAAAA\n",
        made_at="2026-11-30T00:00:00Z",
        filters="",
        command="capsign audit receipt copy.db LEAF",
        rows=rows,
    )
