"""Which keys of the set that is held a verifier takes. Without I/O: the caller fetches."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from capsign_wire.algorithms import ALGORITHMS

from capsign.key_set_cache import KeySetCache

if TYPE_CHECKING:
    from capsign.jwk import VerificationKey
    from capsign.jws import Jws

from capsign import jws as compact

NAMES = {row.jose: row.name for row in ALGORITHMS.values()}
"""Names of algorithms as a Signer takes them, by those of JOSE."""


class AcceptedKeys:
    """The set of one verifier, and the algorithms that it was told to accept."""

    def __init__(self, algorithms: Collection[str], stale: float) -> None:
        """Raises ValueError for a name that is no algorithm with public keys, ImportError."""
        try:
            from capsign.jwk import KINDS, keys_of
        except ImportError as error:
            raise ImportError("a verifier needs `pip install 'capsign[verify]'`") from error
        unknown = set(algorithms) - KINDS.keys()
        if unknown or not algorithms or isinstance(algorithms, str):
            raise ValueError(f"algorithms are some of {', '.join(KINDS)}")
        self._algorithms = frozenset(algorithms)
        self.cache = KeySetCache(keys_of, stale)

    def taken(self, key: VerificationKey | None) -> VerificationKey:
        """The key, if there is one and its algorithm is accepted. Raises InvalidSignature,
        Refused.
        """
        if key is None:
            raise compact.invalid("No key of the set has this kid.")
        if key.algorithm not in self._algorithms:
            raise compact.refused(f"{key.algorithm} is not accepted here.")
        return key


def demand_same(key: VerificationKey, jws: Jws) -> None:
    """Raise Refused unless the algorithm that a JWS names is that of its key."""
    if key.algorithm != jws.algorithm:
        raise compact.refused("The algorithm of this JWS is not that of its key.")
