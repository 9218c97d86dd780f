"""Finds keys by label and caches their handles. For the token's thread only.

A token whose directory has vanished answers a search with "no such object". So a key counts as
absent only if a fresh login did not find it, and the token was still there afterwards. Two keys
with one label are an error, never a choice.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from capsign_adapter.algorithms.kinds import Family
from capsign_adapter.token.interface import (
    KeyExistsError,
    KeyMissingError,
    TokenContestedError,
    TokenUnavailableError,
)
from capsign_adapter.token.session import Kind, Session

EXPANDED_KEPT = 256
"""Most derived keys kept in the token between calls. They are session objects, and end with the
session.
"""

_KEYS = (Kind.SECRET, Kind.PRIVATE)


class Objects:
    """The keys of one token."""

    def __init__(self, session: Session, token_name: str) -> None:
        self._session = session
        self._name = token_name
        self._generation = session.generation
        self._found: dict[tuple[Kind, str], Any] = {}
        self._families: dict[str, Family | None] = {}
        self._expanded: OrderedDict[tuple[str, bytes], Any] = OrderedDict()

    def _remembered(self) -> dict[tuple[Kind, str], Any]:
        if self._generation != self._session.generation:  # the handles died with their session
            self._found.clear()
            self._families.clear()
            self._expanded.clear()
            self._generation = self._session.generation
        return self._found

    def _search(self, label: str, kinds: Iterable[Kind]) -> list[tuple[Kind, Any]]:
        return [(kind, key) for kind in kinds for key in self._session.search(kind, label)]

    def _look(self, label: str, kinds: Iterable[Kind]) -> list[tuple[Kind, Any]]:
        """Search so that an empty result is certain; see the module's docstring."""
        found = self._search(label, kinds)
        if not found:
            self._session.renew()
            found = self._search(label, kinds)
        if not found:
            self._session.renew()
        return found

    def find(self, label: str, *kinds: Kind) -> Any:
        """Returns the key with that label and one of those kinds. Raises KeyMissingError, and
        TokenUnavailableError if there are several.
        """
        known = self._remembered()
        for kind in kinds:
            if (kind, label) in known:
                return known[kind, label]
        found = self._look(label, kinds)
        if not found:
            what = " or ".join(kind.name.lower() for kind in kinds)
            raise KeyMissingError(f"{self._name} holds no {what} key labelled {label!r}")
        # either could be the right one, and a signature by the wrong one cannot be taken back
        if len(found) > 1:
            raise TokenUnavailableError(
                f"{len(found)} keys are labelled {label!r}; keep the right one and "
                f"destroy the others"
            )
        kind, key = found[0]
        self._remembered()[kind, label] = key
        return key

    def secret(self, label: str) -> Any:
        return self.find(label, Kind.SECRET)

    def any_key(self, label: str) -> Any:
        return self.find(label, *_KEYS)

    def private(self, label: str, family: Family) -> Any:
        """Returns the private key with that label, which must be of that family. Raises as
        `find`.
        """
        key = self.find(label, Kind.PRIVATE)
        if self.family(label, key) is not family:
            raise KeyMissingError(f"{self._name} holds {label!r}, but it is no {family.value} key")
        return key

    def family(self, label: str, key: Any) -> Family | None:
        if label not in self._families:
            self._families[label] = self._session.family(key)
        return self._families[label]

    def expanded(self, label: str, info: bytes) -> Any:
        """Returns HKDF-Expand(secret, info, 32) as a key in the token, kept for the next call."""
        root = self.secret(label)
        known = self._expanded.get((label, info))
        if known is not None:
            self._expanded.move_to_end((label, info))
            return known
        key = self._expanded[label, info] = self._session.expand(root, info)
        if len(self._expanded) > EXPANDED_KEPT:
            self._expanded.popitem(last=False)[1].destroy()
        return key

    def public(self, label: str) -> bytes:
        """Returns the SubjectPublicKeyInfo of the key pair with that label."""
        private = self.find(label, Kind.PRIVATE)
        family = self.family(label, private)
        if family is None:
            raise KeyMissingError(
                f"{self._name} holds {label!r}, but no algorithm here uses such a key"
            )
        halves = self._session.search(Kind.PUBLIC, label, private.id)
        if len(halves) != 1:
            raise TokenUnavailableError(
                f"{len(halves)} public keys belong to {label!r}, not one; look at the token"
            )
        return self._session.spki(halves[0], family)

    def labels(self) -> list[str]:
        """Returns the labels of all private and secret keys. Two fresh logins must see the same,
        since a token that is failing shows fewer.
        """
        listings = []
        for _ in range(2):
            self._session.renew()
            listings.append(
                sorted(key.label for kind in _KEYS for key in self._session.search(kind))
            )
        if listings[0] != listings[1]:
            raise TokenContestedError(
                f"the keys of {self._name} changed while they were listed; try again"
            )
        return listings[0]

    def make(self, label: str, maker: Callable[[bytes], None]) -> None:
        """Let `maker` make a key with a new CKA_ID, unless the label is taken. Raises
        KeyExistsError.
        """
        if self._look(label, _KEYS):
            raise KeyExistsError(f"{self._name} holds a key labelled {label!r} already")
        identity = secrets.token_bytes(16)
        maker(identity)
        # PKCS#11 has no unique labels. Whoever sees another key beside its own withdraws: of two
        # that race, one stays or none. A fresh login looks, because SoftHSM can miss for ever what
        # another process stored in the same moment.
        self._session.renew()
        if len(self._search(label, _KEYS)) > 1:
            for kind in Kind:
                for mine in self._session.search(kind, label, identity):
                    mine.destroy()
            raise TokenContestedError(
                f"another process made {label!r} at the same time; nothing was made here, "
                f"look again"
            )

    def destroy(self, label: str) -> None:
        """Destroy a key: the private half first, since an orphaned public key does no harm."""
        key = self.any_key(label)
        identity = key.id
        for kind in _KEYS:
            self._found.pop((kind, label), None)
        self._families.pop(label, None)
        for known in [known for known in self._expanded if known[0] == label]:
            self._expanded.pop(known).destroy()
        key.destroy()
        for public in self._session.search(Kind.PUBLIC, label, identity):
            public.destroy()
