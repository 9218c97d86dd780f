"""What the token holds beside what it should hold: keys that are missing, objects that nobody
knows, attributes that are not as they were made, mechanisms that the keys need.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from capsign_evidence.drift_leaf import DriftKind
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.algorithms.kinds import Scheme
from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.model.drift import Difference, TokenContents, TokenObject
from capsign_adapter.model.key_versions import KeyVersionRow

_STRONG: Mapping[str, bool] = MappingProxyType(
    {
        "sensitive": True,
        "extractable": False,
        "always-sensitive": True,
        "never-extractable": True,
        "local": True,
        "modifiable": False,
        "private": True,
        "sign": True,
        "decrypt": False,
        "unwrap": False,
    }
)

ATTRIBUTES: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {
        "secret-key": MappingProxyType({**_STRONG, "encrypt": False, "wrap": False}),
        "private-key": MappingProxyType({**_STRONG, "derive": False}),
        "public-key": MappingProxyType({"verify": True, "encrypt": False, "wrap": False}),
    }
)
"""How keys are made (`token.session`), by kind. Secrets derive where the token does that inside."""

KEYS = frozenset({"secret-key", "private-key"})
"""Kinds of which each label has one."""

_SCHEMES: Mapping[Scheme, tuple[str, str]] = MappingProxyType(
    {
        Scheme.ECDSA: ("ECDSA", "EC_KEY_PAIR_GEN"),
        Scheme.EDDSA: ("EDDSA", "EC_EDWARDS_KEY_PAIR_GEN"),
        Scheme.RSA_PKCS: ("RSA_PKCS", "RSA_PKCS_KEY_PAIR_GEN"),
        Scheme.RSA_PSS: ("RSA_PKCS_PSS", "RSA_PKCS_KEY_PAIR_GEN"),
    }
)
"""What it takes to sign and to make a key pair for it."""


@dataclass(frozen=True, slots=True)
class Accounted:
    """What the token should hold. `required` are the labels of keys that must be there, `known` of
    those that may be: what is being made or destroyed, and what is trusted no more.
    """

    required: frozenset[str]
    known: frozenset[str]
    rows: tuple[KeyVersionRow, ...]


def of_token(contents: TokenContents, accounted: Accounted) -> Iterator[Difference]:
    """All differences of the token but check values, which it must be asked for."""
    yield from _objects(contents.objects, accounted)
    for one in contents.objects:
        if one.label in accounted.known:
            yield from _attributes(one, contents.derives)
    for needed in sorted(mechanisms_of(accounted.rows) - contents.mechanisms):
        yield Difference(DriftKind.MECHANISM, "token", aspect_of(needed), "offered", "not offered")


def _objects(objects: Sequence[TokenObject], accounted: Accounted) -> Iterator[Difference]:
    held = {one.label for one in objects if one.kind in KEYS}
    for label in sorted(accounted.required - held):
        yield Difference(DriftKind.MISSING_OBJECT, label, "object", "a key", "nothing")
    # a pair has two objects of one label, and a stranger may have several
    kinds: dict[str, list[str]] = {}
    for one in objects:
        kinds.setdefault(one.label, []).append(one.kind)
    for label, some in sorted(kinds.items()):
        keys = sum(kind in KEYS for kind in some)
        if label not in accounted.known:
            found = " and ".join(sorted(set(some)))
            yield Difference(
                DriftKind.UNKNOWN_OBJECT, label or "no-label", "object", "nothing", found
            )
        elif keys > 1 or some.count("public-key") > 1:
            yield Difference(
                DriftKind.UNKNOWN_OBJECT, label, "count", "1", f"{len(some)} objects of this label"
            )


def _attributes(one: TokenObject, derives: bool) -> Iterator[Difference]:
    expected = dict(ATTRIBUTES.get(one.kind, {}))
    if one.kind == "secret-key":
        expected["derive"] = derives
    for name, value in one.attributes:
        wanted = expected.get(name)
        if wanted is not None and value != wanted:
            # both halves of a pair bear one label
            aspect = f"public-{name}" if one.kind == "public-key" else name
            yield Difference(
                DriftKind.KEY_ATTRIBUTE, one.label, aspect, _word(wanted), _word(value)
            )


def of_check(label: str, expected: bytes, found: bytes) -> Iterator[Difference]:
    """A key that is not the one that was made."""
    if expected != found:
        yield Difference(DriftKind.KEY_ATTRIBUTE, label, "check-value", expected.hex(), found.hex())


def mechanisms_of(rows: Iterable[KeyVersionRow]) -> frozenset[str]:
    """What the token must offer: for the adapter's own keys, and for versions that are in use."""
    needed = {"SHA256_HMAC", "GENERIC_SECRET_KEY_GEN", *_SCHEMES[Scheme.EDDSA]}
    for row in rows:
        if row.state == signing_pb2.KEY_STATE_DESTROYED:
            continue
        if row.derived:  # its attestation key is ES256
            needed |= set(_SCHEMES[Scheme.ECDSA])
            continue
        for algorithm in row.algorithms:
            needed |= set(_SCHEMES[_scheme(algorithm)])
    return frozenset(needed)


def _scheme(algorithm: int) -> Scheme:
    row = TABLE[algorithm].in_token
    assert row is not None, "a direct key has an algorithm that tokens have"
    return row.scheme


def aspect_of(mechanism: str) -> str:
    """A mechanism as an aspect: "ecdsa", "ec_key_pair_gen"."""
    return mechanism.lower()


def _word(value: bool) -> str:
    return "true" if value else "false"
