"""The certificate authority of one replica: it issues X.509-SVIDs and gives the trust bundle.

It signs with a key in the token; `decide.authority_schedule` decides what it does when, and the
store records it. Replicas share nothing but the store: each reads the rows every so often, and the
first one to find a step that is due takes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from capsign_wire import settings, svid
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from capsign_adapter.decide import authority_schedule
from capsign_adapter.enrol import roll
from capsign_adapter.enrol.certificates import leaf_certificate
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.keys.authority_key import AuthorityKey
from capsign_adapter.keys.subkeys import token_failure
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.store.errors import CommitUnknownError, StoreUnavailableError
from capsign_adapter.store.interfaces.authorities import Authorities
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.token.interface import Token, TokenError

TURN_S = 10.0
"""Longest wait for another thread that reads or writes the store, seconds."""

_TRIES = 3
"""Attempts to issue a certificate, if another replica changes the authority meanwhile."""


@dataclass(frozen=True, slots=True)
class Issued:
    """An X.509-SVID. `certificates` is DER, the leaf first, without the authority; `authority` is
    the version that signed it.
    """

    certificates: tuple[bytes, ...]
    not_after_ms: int
    authority: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """The trust bundle: DER of each authority's certificate, oldest first. `sequence` rises with
    each change.
    """

    sequence: int
    authorities: tuple[bytes, ...]


class ClockedAuthorities(Authorities, Database, Protocol):
    """The parts of the store that the authority uses; its clock is the one that all replicas
    share.
    """


class Authority:
    """Signs with the active authority. Safe for any thread."""

    def __init__(
        self, token: Token, store: ClockedAuthorities, realm: Realm, turn_s: float = TURN_S
    ) -> None:
        """`turn_s`: longest wait for another thread at the store, seconds. Raises SettingsError if
        there is no authority yet, and what the store raises.
        """
        self._turn_s = turn_s
        self._token = token
        self._store = store
        self._realm = realm
        self._reading = threading.Lock()
        self._promising = threading.Lock()
        self._rows: tuple[AuthorityRow, ...] = ()
        self._keys: dict[int, AuthorityKey] = {}
        if not self.refresh():
            sentence = (
                "The section [identity] is there, and the store has no authority yet. Run "
                "`capsign-adapter provision`."
            )
            raise settings.SettingsError(sentence, key="identity")

    def issue(self, spiffe_id: str, spki: bytes, now_ms: int, names: Sequence[str] = ()) -> Issued:
        """Returns an X.509-SVID for the key with this SubjectPublicKeyInfo (DER). One token call.

        The caller has checked that the identity is the peer's and that the peer has the key.
        `names` are the DNS names and addresses of a server. Raises FailureError TOKEN_UNAVAILABLE,
        STORE_UNAVAILABLE, and CERTIFICATE_REQUEST_REFUSED if the key is not P-256 or the identity
        does not fit.
        """
        public = p256(spki)
        try:
            svid.check_id(spiffe_id)
        except svid.NotAnSvidError as error:
            detail = (
                f"This workload cannot have a certificate. {error} Shorten or change its "
                f"service account's name."
            )
            raise FailureError(failures_pb2.REASON_CERTIFICATE_REQUEST_REFUSED, detail) from None
        try:
            row, not_before_ms, not_after_ms = self._promised(now_ms)
            root = x509.load_der_x509_certificate(row.certificate)
            certificate = leaf_certificate(
                self._key(row), root, public, spiffe_id, not_before_ms, not_after_ms, names
            )
        except TokenError as error:
            raise token_failure(error) from error
        except (StoreUnavailableError, CommitUnknownError) as error:
            # A promise that may have been written harms nobody: it only lets an authority be
            # trusted a little longer.
            raise FailureError(
                failures_pb2.REASON_STORE_UNAVAILABLE, "The adapter's store cannot be used now."
            ) from error
        return Issued((certificate,), not_after_ms, row.version)

    def bundle(self) -> Bundle:
        """Returns the trust bundle, from memory."""
        rows = self._rows
        return Bundle(
            authority_schedule.sequence(rows),
            tuple(row.certificate for row in authority_schedule.trusted(rows)),
        )

    def remaining_s(self, now_ms: int) -> float:
        """Returns the seconds until the signing authority expires; 0 if none can sign."""
        row = authority_schedule.signing(self._rows, now_ms)
        return (row.expires_ms - now_ms) / 1000 if row is not None else 0.0

    def rows(self) -> tuple[AuthorityRow, ...]:
        """Returns the authorities as they were last read."""
        return self._rows

    def refresh(self) -> tuple[AuthorityRow, ...]:
        """Read the authorities from the store. Raises what the store raises."""
        # one read at a time: none that began earlier may bring the past back
        with _turn(self._reading, self._turn_s):
            self._rows = tuple(self._store.authorities())
            return self._rows

    def look(self, clock_ms: Callable[[], int]) -> None:
        """Read the authorities, and take the steps that are due by this clock and the store's. Call
        it regularly.

        Raises what store and token raise.
        """
        self.refresh()
        for _ in range(authority_schedule.MOST_TRUSTED):
            now_ms = clock_ms()
            step = authority_schedule.due(self._rows, self._realm.lifetimes, now_ms)
            if step is None:
                return
            told_ms = self._store.clock_ms()
            if told_ms is not None:
                # A step is for all replicas, and nobody takes it back: one clock that is ahead must
                # not make it, nor one that is behind say that a wait began earlier than it did.
                step = authority_schedule.due(
                    self._rows, self._realm.lifetimes, min(now_ms, told_ms)
                )
                now_ms = told_ms
            if step is None:
                return
            try:
                roll.take(step, self._rows, self._token, self._store, self._realm, now_ms)
            except FailureError as error:
                if error.reason != failures_pb2.REASON_ILLEGAL_TRANSITION:
                    raise
                self.refresh()  # another replica was first
                return
            self.refresh()

    def _promised(self, now_ms: int) -> tuple[AuthorityRow, int, int]:
        """Returns the authority that signs now, and the validity of a certificate. The store has
        recorded by then that the authority signs until that end, so that it stays trusted for as
        long.
        """
        for _ in range(_TRIES):
            row = authority_schedule.signing(self._rows, now_ms)
            if row is None:
                break
            not_before_ms, not_after_ms = authority_schedule.validity(
                row, self._realm.lifetimes, now_ms
            )
            if authority_schedule.promise_for(row, self._realm.lifetimes, not_after_ms) is None:
                return row, not_before_ms, not_after_ms
            self._promise(row.version, not_after_ms)
        detail = (
            "No certificate authority of this deployment can sign now. See `capsign-adapter "
            "authority status`."
        )
        raise FailureError(failures_pb2.REASON_TOKEN_UNAVAILABLE, detail)

    def _promise(self, version: int, not_after_ms: int) -> None:
        """Record that this authority signs until then, or read which one signs instead. One thread
        writes for all.
        """
        with _turn(self._promising, self._turn_s):
            row = next(row for row in self._rows if row.version == version)
            until_ms = authority_schedule.promise_for(row, self._realm.lifetimes, not_after_ms)
            if until_ms is not None:
                self._store.promise_authority(version, until_ms)
                self.refresh()

    def _key(self, row: AuthorityRow) -> AuthorityKey:
        key = self._keys.get(row.version)
        if key is None:
            key = self._keys[row.version] = AuthorityKey(self._token, row.label)
        return key


@contextmanager
def _turn(lock: threading.Lock, wait_s: float) -> Iterator[None]:
    """Hold the lock. Raises StoreUnavailableError after `wait_s` seconds, so that callers do not
    queue behind each other while the store hangs.
    """
    if not lock.acquire(timeout=wait_s):
        raise StoreUnavailableError(f"The store has not told the authorities for {wait_s:g} s.")
    try:
        yield
    finally:
        lock.release()


def p256(spki: bytes) -> ec.EllipticCurvePublicKey:
    """Returns the P-256 public key of a request. Raises FailureError
    CERTIFICATE_REQUEST_REFUSED.
    """
    try:
        public = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
        public.curve, ec.SECP256R1
    ):
        detail = "The key of a certificate is a P-256 key. Make the request with one."
        raise FailureError(failures_pb2.REASON_CERTIFICATE_REQUEST_REFUSED, detail)
    return public
