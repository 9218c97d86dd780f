"""A proxy of the token that counts its errors in the metric `capsign.token.errors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from capsign_wire.telemetry import Metrics
from capsign_wire.types.v1 import algorithms_pb2

from capsign_adapter.algorithms.kinds import Feature
from capsign_adapter.model.drift import TokenContents
from capsign_adapter.token.interface import (
    KeyAttributes,
    KeyExistsError,
    KeyMissingError,
    PinRejectedError,
    Token,
    TokenError,
    TokenUnavailableError,
)

T = TypeVar("T")

_FAULTS: tuple[tuple[type[TokenError], str], ...] = (
    (TokenUnavailableError, "unavailable"),
    (PinRejectedError, "pin_rejected"),
    (KeyMissingError, "key_missing"),
    (KeyExistsError, "key_exists"),
    (TokenError, "other"),
)
"""The metric's label for an error: the first class that matches."""


class CountedToken:
    """Passes everything on to `token`; counts what it raises and raises it again."""

    def __init__(self, token: Token, metrics: Metrics) -> None:
        self._token = token
        self._errors = metrics.counter("capsign.token.errors")

    def _counted(self, call: Callable[..., T], *arguments: object) -> T:
        try:
            return call(*arguments)
        except TokenError as error:
            self._errors.add(next(fault for kind, fault in _FAULTS if isinstance(error, kind)))
            raise

    @property
    def name(self) -> str:
        return self._token.name

    @property
    def features(self) -> frozenset[Feature]:
        return self._token.features

    def hmac(self, label: str, data: bytes) -> bytes:
        return self._counted(self._token.hmac, label, data)

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        return self._counted(self._token.hkdf_hmac, label, info, data)

    def sign(self, label: str, algorithm: algorithms_pb2.Algorithm.ValueType, data: bytes) -> bytes:
        return self._counted(self._token.sign, label, algorithm, data)

    def generate_secret(self, label: str) -> None:
        self._counted(self._token.generate_secret, label)

    def generate_key_pair(self, label: str, algorithm: algorithms_pb2.Algorithm.ValueType) -> None:
        self._counted(self._token.generate_key_pair, label, algorithm)

    def public_key(self, label: str) -> bytes:
        return self._counted(self._token.public_key, label)

    def attributes(self, label: str) -> KeyAttributes:
        return self._counted(self._token.attributes, label)

    def labels(self) -> list[str]:
        return self._counted(self._token.labels)

    def contents(self) -> TokenContents:
        return self._counted(self._token.contents)

    def destroy(self, label: str) -> None:
        self._counted(self._token.destroy, label)

    def close(self) -> None:
        self._token.close()
