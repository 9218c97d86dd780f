"""What replicas say of themselves beside policy and each other. `drift_token` has the token.

Every replica comes to the same differences from the same reports, so it does not matter which of
them writes what was found.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.key_states import SIGNS

from capsign_adapter.decide import durations
from capsign_adapter.decide.authority_schedule import MAX_CLOCK_SKEW_MS
from capsign_adapter.decide.policy import Key, Lifetime, Policy
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.drift import Difference, DriftRow, ReplicaReport
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import AuthorityState

MAX_DIFFERENCES = 1000
"""Most that are told one by one; beyond them there is one that says so."""

MAX_TEXT = 200
"""Longest text of a difference, characters."""

TLS_VERSIONS = ("1.0", "1.1", "1.2", "1.3")
"""Weakest first."""

CIPHERS = frozenset(
    {"TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"}
)
"""Cipher suites of TLS 1.3 (RFC 8446, appendix B.4) that may be negotiated."""


def shown(text: str) -> str:
    """Other people's text as one line of printable ASCII, at most MAX_TEXT characters; of what is
    longer the end is a digest, so that two of them stay two. What it returns it leaves as it is.
    """
    escaped = "".join(map(_plain, text))
    if len(escaped) <= MAX_TEXT:
        return escaped
    return f"{escaped[: MAX_TEXT - 19]}...{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _plain(letter: str) -> str:
    if letter.isascii() and letter.isprintable():
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def bounded(differences: Iterable[Difference]) -> tuple[Difference, ...]:
    """Sorted, each once by name, with bounded texts and a bounded number of them."""
    by_name: dict[tuple[DriftKind, str, str], Difference] = {}
    for one in sorted(differences):
        plain = Difference(
            one.kind, shown(one.subject), one.aspect, shown(one.expected), shown(one.found)
        )
        by_name.setdefault((plain.kind, plain.subject, plain.aspect), plain)
    found = tuple(by_name.values())
    if len(found) <= MAX_DIFFERENCES:
        return found
    more = Difference(
        found[MAX_DIFFERENCES].kind,
        "others",
        "count",
        "0",
        f"more differences than {MAX_DIFFERENCES}",
    )
    return (*found[:MAX_DIFFERENCES], more)


def moved(
    rows: Sequence[DriftRow], found: Iterable[Difference], observed: Iterable[DriftKind]
) -> tuple[list[Difference], list[DriftRow]]:
    """What is new and what is gone. Rows of kinds that could not be observed stay as they are: no
    answer is not absence.
    """
    now, kinds = set(found), set(observed)
    known = {row.difference for row in rows}
    gone = [row for row in rows if row.difference.kind in kinds and row.difference not in now]
    return sorted(now - known), gone


def of_tls(policy: Policy, seen: Mapping[str, Mapping[str, str]]) -> Iterator[Difference]:
    """What handshakes with our own listeners negotiated, by listener: `oldest` and `newest` TLS
    version, `cipher`, and `client-certificate` ("demanded", "not demanded" or "none").
    """
    floor = TLS_VERSIONS.index(policy.tls.min)
    for listener, facts in sorted(seen.items()):
        for aspect in ("oldest", "newest"):
            version = facts.get(aspect)
            if version is not None and TLS_VERSIONS.index(version) < floor:
                expected = f"at least {policy.tls.min}"
                yield Difference(DriftKind.TLS, listener, aspect, expected, version)
        cipher = facts.get("cipher")
        if cipher is not None and cipher not in CIPHERS:
            yield Difference(DriftKind.TLS, listener, "cipher", "a suite of TLS 1.3", cipher)
        asked, wanted = facts.get("client-certificate"), facts.get("wanted")
        if asked != wanted:
            found = asked or "unknown"
            yield Difference(DriftKind.TLS, listener, "client-certificate", wanted or "none", found)


def of_settings(running: Mapping[str, str], on_disk: Mapping[str, str]) -> Iterator[Difference]:
    """Settings that the configuration file has by now and the process was not started with."""
    for name in sorted(running.keys() | on_disk.keys()):
        mine, file = running.get(name, "none"), on_disk.get(name, "none")
        if mine != file:
            yield Difference(DriftKind.CONFIGURATION, "file", name, file, mine)


def of_retention(*, unwitnessed: bool) -> Iterator[Difference]:
    """Leaves of the log that leave the store though no witness had to cosign what covers them."""
    if unwitnessed:
        yield Difference(
            DriftKind.CONFIGURATION, "log.retention", "witnesses", "a quorum", "none demanded"
        )


@dataclass(frozen=True, slots=True)
class Stated:
    """What the chart was installed with; what it does not say is empty. `grants` are those that the
    profiles of its agents name.
    """

    trust_domain: str = ""
    app_version: str = ""
    grants: tuple[str, ...] = ()


def of_chart(policy: Policy, chart: Stated, software: str) -> Iterator[Difference]:
    """What the chart says beside policy and software."""
    if chart.trust_domain and chart.trust_domain != policy.trust_domain:
        yield Difference(
            DriftKind.CHART, "chart", "trust_domain", policy.trust_domain, chart.trust_domain
        )
    if chart.app_version and chart.app_version != software:
        yield Difference(DriftKind.CHART, "chart", "app_version", chart.app_version, software)
    for grant in sorted(set(chart.grants)):
        if policy.grant(grant) is None:
            subject = f"chart/grant/{grant}"
            yield Difference(DriftKind.CHART, subject, "grant", "a grant of the policy", "none")


def of_replicas(policy: Policy, reports: Sequence[ReplicaReport]) -> Iterator[Difference]:
    """What the live replicas report: what each found of itself, other settings or software than
    most of the others, files that are not the policy in force.
    """
    for report in reports:
        for one in report.own:
            subject = f"{report.name}/{one.subject}"
            yield Difference(one.kind, subject, one.aspect, one.expected, one.found)
    yield from _outvoted(
        DriftKind.SOFTWARE, "version", {report.name: report.software for report in reports}, reports
    )
    names = sorted({name for report in reports for name, _ in report.settings})
    for name in names:
        values = {report.name: dict(report.settings).get(name, "none") for report in reports}
        yield from _outvoted(DriftKind.CONFIGURATION, name, values, reports)
    in_force = policy.digest.hex()
    for digest in sorted({report.policy_file for report in reports}):
        if digest != in_force:
            subject = f"policy-file/{digest or 'unreadable'}"
            found = digest or "cannot be read"
            yield Difference(DriftKind.POLICY_FILE, subject, "digest", in_force, found)


def _outvoted(
    kind: DriftKind, aspect: str, values: Mapping[str, str], reports: Sequence[ReplicaReport]
) -> Iterator[Difference]:
    """Replicas whose value is not that of most; of as many, the one that started last counts: it
    has what was rolled out.
    """
    if len(set(values.values())) < 2:
        return
    counts = Counter(values.values())
    newest = {
        value: max(report.started_ms for report in reports if values[report.name] == value)
        for value in counts
    }
    expected = max(counts, key=lambda value: (counts[value], newest[value], value))
    for name, value in sorted(values.items()):
        if value != expected:
            yield Difference(kind, name, aspect, expected, value)


def of_cryptoperiods(
    policy: Policy, rows: Iterable[KeyVersionRow], now_ms: int
) -> Iterator[Difference]:
    """Versions that sign and are older than their cryptoperiod."""
    for row in rows:
        if row.state not in SIGNS or not row.activated_ms:
            continue
        life = lifetime_of(policy.key(row.tenant, row.key))
        if now_ms - row.activated_ms >= life.cryptoperiod_ms:
            yield Difference(
                DriftKind.LIFETIME,
                f"key/{row.name}",
                "cryptoperiod",
                f"at most {durations.to_text(life.cryptoperiod_ms)}",
                f"signs since {day_of(row.activated_ms)}",
            )


def of_authorities(rows: Iterable[AuthorityRow], life_ms: int) -> Iterator[Difference]:
    """Authorities that are not retired and live longer than the configuration says now."""
    for row in rows:
        life = row.expires_ms - row.created_ms
        if row.state != AuthorityState.RETIRED and life > life_ms + MAX_CLOCK_SKEW_MS:
            yield Difference(
                DriftKind.LIFETIME,
                f"authority/{row.version}",
                "life",
                f"at most {durations.to_text(life_ms)}",
                durations.to_text(life),
            )


def of_certificates(lives: Mapping[str, int], life_ms: int) -> Iterator[Difference]:
    """Serving certificates, by listener, that live longer than the configuration says now.
    Milliseconds.
    """
    for listener, life in sorted(lives.items()):
        if life > life_ms + 2 * MAX_CLOCK_SKEW_MS:
            yield Difference(
                DriftKind.LIFETIME,
                listener,
                "certificate",
                f"at most {durations.to_text(life_ms)}",
                durations.to_text(life),
            )


def day_of(ms: int) -> str:
    """The day of a time, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).date().isoformat()


def lifetime_of(key: Key | None) -> Lifetime:
    """The lifetime of a key; of one that the policy has no more, the usual one."""
    return key.lifetime if key is not None else Lifetime()
