"""`Token` on a PKCS#11 module: hands every call to the token's thread, and waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from capsign_wire.algorithms import ALGORITHMS
from capsign_wire.types.v1 import algorithms_pb2 as pb

from capsign_adapter.algorithms.kinds import Feature, Scheme
from capsign_adapter.model.drift import TokenContents
from capsign_adapter.token import encodings
from capsign_adapter.token.interface import KeyAttributes, TokenUnavailableError
from capsign_adapter.token.objects import Objects
from capsign_adapter.token.profiles import profile_of
from capsign_adapter.token.provision_lock import provision_lock
from capsign_adapter.token.session import Session, Signing
from capsign_adapter.token.settings import TokenSettings
from capsign_adapter.token.survey import Survey
from capsign_adapter.token.worker import TokenThread

T = TypeVar("T")

_SIGNING = {
    Scheme.ECDSA: Signing.ECDSA,
    Scheme.EDDSA: Signing.EDDSA,
    Scheme.RSA_PKCS: Signing.RSA_PKCS,
    Scheme.RSA_PSS: Signing.RSA_PSS,
}

_held: set[str] = set()
_held_lock = threading.Lock()
"""Modules with an open token in this process. A second one would be a second thread in the same
module.
"""


class Pkcs11Token:
    """See the interface for what each method promises."""

    def __init__(
        self, settings: TokenSettings, session: Callable[[TokenSettings], Session] = Session
    ) -> None:
        self._settings = settings
        self._name = f"{profile_of(settings.module).name} {settings.label!r}"
        self._module = str(settings.module.resolve())
        with _held_lock:
            if self._module in _held:
                raise RuntimeError(
                    f"{settings.module} is open in this process already; share that token"
                )
            _held.add(self._module)
        try:
            self._session = session(settings)
            self._objects = Objects(self._session, self._name)
            self._survey, self._surveying = Survey(self._session, self._step), threading.Lock()
            self._thread = TokenThread(f"token {settings.label}", waiting=settings.waiting)
            try:
                self._features = self._run(self._session.features)
            except BaseException:
                self._end()
                raise
        except BaseException:
            self._release()
            raise

    def _run(self, operation: Callable[[], T]) -> T:
        """Run an operation that may be done twice. It is repeated on a fresh session if the first
        one was lost.
        """
        return self._thread.run(
            lambda: self._session.attempt(operation, again=True), self._settings.call_timeout_s
        )

    def _run_once(self, operation: Callable[[], T]) -> T:
        """Run an operation that must not be done twice. After an error it may have happened: call
        `attributes` to find out.
        """
        return self._thread.run(
            lambda: self._session.attempt(operation, again=False), self._settings.generate_timeout_s
        )

    def _step(self, operation: Callable[[], T]) -> T:
        """Run a step of several, which none but their caller can begin anew."""
        return self._thread.run(
            lambda: self._session.attempt(operation, again=False), self._settings.call_timeout_s
        )

    def probe(self, operation: Callable[[Session], T]) -> T:
        """Runs an operation with the open session, once, on the token's thread: for what `Token`
        has no words for.
        """
        return self._run_once(lambda: operation(self._session))

    @property
    def name(self) -> str:
        return self._name

    @property
    def features(self) -> frozenset[Feature]:
        return self._features

    def hmac(self, label: str, data: bytes) -> bytes:
        return self._run(
            lambda: self._session.sign(self._objects.secret(label), Signing.HMAC_SHA256, data)
        )

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        if Feature.HKDF_INSIDE not in self._features:
            raise ValueError(f"{self._name} does not derive inside: it lacks CKM_HKDF_DERIVE")
        return self._run(
            lambda: self._session.sign(
                self._objects.expanded(label, info), Signing.HMAC_SHA256, data
            )
        )

    def sign(self, label: str, algorithm: pb.Algorithm.ValueType, data: bytes) -> bytes:
        row = encodings.check_input(algorithm, data)
        how = _SIGNING[row.scheme]
        to_sign = encodings.digest_info(data) if how is Signing.RSA_PKCS else data
        signature = self._run(
            lambda: self._session.sign(self._objects.private(label, row.family), how, to_sign)
        )
        return encodings.ecdsa_der(signature) if how is Signing.ECDSA else signature

    def generate_secret(self, label: str) -> None:
        derives = Feature.HKDF_INSIDE in self._features
        make = self._session.make_secret
        self._make(label, lambda identity: make(label, identity, derives=derives))

    def generate_key_pair(self, label: str, algorithm: pb.Algorithm.ValueType) -> None:
        row = encodings.in_token(algorithm)
        if row.needs is not None and row.needs not in self._features:
            name = ALGORITHMS[algorithm].name
            raise ValueError(
                f"{self._name} has no {name} keys; choose another algorithm for "
                f"{label!r}, or another token"
            )
        make = self._session.make_pair
        self._make(label, lambda identity: make(label, identity, row.family))

    def _make(self, label: str, maker: Callable[[bytes], None]) -> None:
        def in_turn() -> None:
            with provision_lock(self._settings.pin_file, self._settings.call_timeout_s):
                # what another process made before our turn is seen only after a fresh login
                self._session.renew()
                self._objects.make(label, maker)

        self._run_once(in_turn)

    def public_key(self, label: str) -> bytes:
        return self._run(lambda: self._objects.public(label))

    def attributes(self, label: str) -> KeyAttributes:
        return self._run(lambda: self._session.attributes(self._objects.any_key(label)))

    def labels(self) -> list[str]:
        return self._run(self._objects.labels)

    def contents(self) -> TokenContents:
        derives = Feature.HKDF_INSIDE in self._features
        with self._surveying:
            objects = self._survey.contents()
        return TokenContents(objects, self._run(self._session.mechanisms), derives)

    def destroy(self, label: str) -> None:
        self._run_once(lambda: self._objects.destroy(label))

    def close(self) -> None:
        self._end()
        self._release()

    def _end(self) -> None:
        try:
            self._thread.run(self._session.drop, self._settings.call_timeout_s)
        except TokenUnavailableError:
            # closed before, or it does not answer: then there is nobody to log out
            pass
        finally:
            self._thread.stop(self._settings.call_timeout_s)

    def _release(self) -> None:
        with _held_lock:
            _held.discard(self._module)
