"""The signers of key versions in contexts: derived once, cached for a bounded time, dropped at once
by `clear`.

Safe for any thread. A token that gives no answer shows as FailureError TOKEN_UNAVAILABLE.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from threading import Lock

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2 as algorithms
from capsign_wire.types.v1 import failures_pb2 as reasons
from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.algorithms.derived import Subkey
from capsign_adapter.algorithms.expand import expand
from capsign_adapter.algorithms.kid import hs256_kid
from capsign_adapter.algorithms.table import TABLE
from capsign_adapter.decide.context import Context, hkdf_info
from capsign_adapter.keys.attestation import attest
from capsign_adapter.keys.cache import BoundedCache
from capsign_adapter.keys.subkeys import (
    InsideHs256Subkey,
    direct_key,
    from_okm,
    token_failure,
)
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.token.interface import Token, TokenError


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Most subkeys in memory, and the longest time for each."""

    max_entries: int = 4096
    max_age_ms: int = 300_000


@dataclass(frozen=True, slots=True, repr=False)
class Signer:
    """A key that signs, and what is stated about it with each signature.

    `sign` takes what the algorithm's row sends upstream. `context_digest` is empty for a direct
    key: it is bound to no context.
    """

    sign: Callable[[bytes], bytes]
    spki: bytes
    kid: str
    custody: algorithms.CustodyClass.ValueType
    algorithm: algorithms.Algorithm.ValueType
    version: int
    context_digest: bytes


_Name = tuple[str, str, int, bytes]


class Keyring:
    """Signers by key version, purpose, algorithm and context. `clock_ms` is monotonic, in
    milliseconds.
    """

    def __init__(
        self,
        token: Token,
        settings: CacheSettings,
        clock_ms: Callable[[], int],
        yielded: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`yielded` is entered around each wait for another thread's call of the token."""
        self._token = token
        self._yielded = yielded
        self._clock_ms = clock_ms
        self._signers: BoundedCache[_Name, Signer] = BoundedCache(
            settings.max_entries, settings.max_age_ms
        )
        self._attestations: BoundedCache[tuple[str, bytes], bytes] = BoundedCache(
            settings.max_entries, settings.max_age_ms
        )
        self._making: dict[_Name, Future[Signer]] = {}
        self._lock = Lock()

    def __len__(self) -> int:
        """How many signers are in the cache."""
        return len(self._signers)

    def signer(
        self,
        row: KeyVersionRow,
        purpose: str,
        algorithm: algorithms.Algorithm.ValueType,
        context_digest: bytes,
    ) -> Signer:
        """Returns the signer for this context. The caller has decided that it may be used.

        A context that is not in the cache costs one call of the token, which concurrent callers
        share. Raises FailureError ALGORITHM_NOT_ALLOWED, TOKEN_UNAVAILABLE.
        """
        name = (row.label, purpose, algorithm, context_digest)
        held = self._signers.get(name, self._clock_ms())
        return held if held is not None else self._first_use(name, row)

    def holds(
        self,
        row: KeyVersionRow,
        purpose: str,
        algorithm: algorithms.Algorithm.ValueType,
        context_digest: bytes,
    ) -> bool:
        """Whether this signer is in the cache."""
        return (
            self._signers.get((row.label, purpose, algorithm, context_digest), self._clock_ms())
            is not None
        )

    def public_key(
        self,
        row: KeyVersionRow,
        purpose: str,
        algorithm: algorithms.Algorithm.ValueType,
        context_digest: bytes,
        attestation: bytes = b"",
    ) -> signing_pb2.PublicKey:
        """Returns the public key for verifiers. For HS256 it has the id only: there is no public
        half.
        """
        signer = self.signer(row, purpose, algorithm, context_digest)
        public = signing_pb2.PublicKey(
            kid=signer.kid,
            algorithm=algorithm,
            spki=signer.spki,
            version=row.version,
            state=row.state,
            context_digest=signer.context_digest,
            attestation=attestation,
        )
        if row.published_ms:
            public.visible_since.FromMilliseconds(row.published_ms)
        if row.activated_ms:
            public.activated_at.FromMilliseconds(row.activated_ms)
        return public

    def attestation(
        self, row: KeyVersionRow, algorithm: algorithms.Algorithm.ValueType, context: Context
    ) -> bytes:
        """Returns the DSSE envelope that states this context's public key.

        Empty if there is nothing to attest: no transcript in the context, a direct key, or HS256.
        """
        if not context.transcript:
            return b""
        digest = context.digest()
        signer = self.signer(row, context.purpose, algorithm, digest)
        if not signer.spki or not signer.context_digest:
            return b""
        name, generation = (signer.kid, digest), self._attestations.generation
        held = self._attestations.get(name, self._clock_ms())
        if held is None:
            try:
                held = attest(
                    self._token,
                    row.label,
                    context,
                    signer.kid,
                    signer.spki,
                    row.version,
                    signer.custody,
                )
            except TokenError as error:
                raise token_failure(error) from error
            self._attestations.put(name, held, self._clock_ms(), generation)
        return held

    def custody(
        self, row: KeyVersionRow, algorithm: algorithms.Algorithm.ValueType
    ) -> algorithms.CustodyClass.ValueType:
        """Returns the custody class of this version and algorithm, without making a signer."""
        try:
            return self._custody(row, algorithm)
        except TokenError as error:
            raise token_failure(error) from error

    def sweep(self) -> int:
        """Drop signers that were held too long; call it about once a second. Returns how many."""
        now_ms = self._clock_ms()
        self._attestations.sweep(now_ms)
        return self._signers.sweep(now_ms)

    def clear(self) -> None:
        """Drop every subkey: on rotation, revocation and destruction.

        A derivation in progress is not kept. A call that already holds a signer may finish; the
        epoch check in the commit refuses what it signed.
        """
        with self._lock:
            self._making.clear()
            self._signers.clear()
            self._attestations.clear()

    def _first_use(self, name: _Name, row: KeyVersionRow) -> Signer:
        with self._lock:
            generation = self._signers.generation
            future = self._making.get(name)
            mine = future is None
            if future is None:
                # Another thread may have put it since we looked.
                held = self._signers.get(name, self._clock_ms())
                if held is not None:
                    return held
                future = self._making[name] = Future()
        if not mine:
            with self._yielded():
                return future.result()  # bounded by the token call that its maker waits for
        try:
            signer = self._make(name, row)
        except BaseException as error:
            self._forget(name, future)
            future.set_exception(error)
            raise
        self._signers.put(name, signer, self._clock_ms(), generation)
        self._forget(name, future)
        future.set_result(signer)
        return signer

    def _forget(self, name: _Name, future: Future[Signer]) -> None:
        with self._lock:
            if self._making.get(name) is future:
                del self._making[name]

    def _make(self, name: _Name, row: KeyVersionRow) -> Signer:
        label, purpose, number, context_digest = name
        algorithm = algorithms.Algorithm.ValueType(number)
        try:
            custody = self._custody(row, algorithm)
            key: Subkey
            if custody == algorithms.CUSTODY_CLASS_HSM_DIRECT:
                key, context_digest = direct_key(self._token, label, algorithm), b""
            elif custody == algorithms.CUSTODY_CLASS_HSM_DERIVED:
                info = hkdf_info(purpose, context_digest, ALGORITHMS[number].okm_len)
                key = InsideHs256Subkey(
                    self._token, label, info, hs256_kid(context_digest, row.version)
                )
            else:
                length = ALGORITHMS[number].okm_len
                info = hkdf_info(purpose, context_digest, length)
                okm = expand(lambda data: self._token.hmac(label, data), info, length)
                key = from_okm(algorithm, okm, context_digest, row.version)
        except TokenError as error:
            raise token_failure(error) from error
        return Signer(key.sign, key.spki, key.kid, custody, algorithm, row.version, context_digest)

    def _custody(
        self, row: KeyVersionRow, algorithm: algorithms.Algorithm.ValueType
    ) -> algorithms.CustodyClass.ValueType:
        if algorithm not in row.algorithms or algorithm not in ALGORITHMS:
            raise FailureError(
                reasons.REASON_ALGORITHM_NOT_ALLOWED,
                "This version of the key was not made for the algorithm.",
            )
        if not row.derived:
            return algorithms.CUSTODY_CLASS_HSM_DIRECT
        derived = TABLE[algorithm].derived
        inside = derived is not None and derived.inside in self._token.features
        return (
            algorithms.CUSTODY_CLASS_HSM_DERIVED
            if inside
            else algorithms.CUSTODY_CLASS_ADAPTER_MEMORY
        )
