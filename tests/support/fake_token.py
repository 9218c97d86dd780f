"""A token in memory that behaves: same contract, same errors, real signatures, and faults on
request.

`FakeToken` satisfies `capsign_adapter.token.interface.Token` and passes the same contract suite as
SoftHSM and NSS.

    token = FakeToken()
    token.fail("hmac")                      # the next hmac fails before it has any effect
    # the next one makes the key, and then fails: the lost answer
    token.fail("generate_secret", after=True)
    token.lose(); token.restore()           # the token is pulled out, and put back
    token.import_secret("x", b"...")        # as a ceremony would: shows its weaknesses
    token.calls["sign"]                     # how often each method was asked
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from capsign_adapter.algorithms.kinds import Family, Feature, Scheme
from capsign_adapter.decide.drift_token import ATTRIBUTES
from capsign_adapter.model.drift import TokenContents, TokenObject
from capsign_adapter.token.encodings import (
    RSA_BITS,
    RSA_EXPONENT,
    SECRET_LEN,
    check_input,
    in_token,
)
from capsign_adapter.token.interface import (
    KeyAttributes,
    KeyExistsError,
    KeyMissingError,
    TokenUnavailableError,
)
from capsign_wire.types.v1 import algorithms_pb2 as pb
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

_MAKE: dict[Family, Callable[[], Any]] = {
    Family.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    Family.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    Family.RSA: lambda: rsa.generate_private_key(RSA_EXPONENT, RSA_BITS),
    Family.ED25519: ed25519.Ed25519PrivateKey.generate,
}


@dataclass(frozen=True, slots=True)
class Stored:
    key: Any
    family: Family | None
    strong: bool


MECHANISMS = frozenset(
    {
        "SHA256_HMAC",
        "GENERIC_SECRET_KEY_GEN",
        "ECDSA",
        "EC_KEY_PAIR_GEN",
        "EDDSA",
        "EC_EDWARDS_KEY_PAIR_GEN",
        "RSA_PKCS",
        "RSA_PKCS_PSS",
        "RSA_PKCS_KEY_PAIR_GEN",
    }
)


def _shown(label: str, stored: Stored, derives: bool) -> list[TokenObject]:
    """The objects of one label, as a token shows them."""
    pair = stored.family is not None
    kind = "private-key" if pair else "secret-key"
    told = dict(ATTRIBUTES[kind]) if pair else {**ATTRIBUTES[kind], "derive": derives}
    if not stored.strong:
        told.update({"local": False, "always-sensitive": False, "never-extractable": False})
    found = [TokenObject(kind, label, tuple(told.items()))]
    if pair:
        found.append(TokenObject("public-key", label, tuple(ATTRIBUTES["public-key"].items())))
    return found


@dataclass(frozen=True, slots=True)
class _Fault:
    error: Exception
    after: bool


@dataclass
class FakeToken:
    """See the module. `features` may be narrowed; every method takes the one lock, as a token's
    thread would.
    """

    features: frozenset[Feature] = frozenset(Feature)
    name: str = "fake token"
    mechanisms: frozenset[str] = MECHANISMS
    calls: Counter[str] = field(default_factory=Counter)
    objects: dict[str, Stored] = field(default_factory=dict)
    _faults: dict[str, deque[_Fault]] = field(default_factory=dict)
    _lost: bool = False
    _closed: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # Faults

    def fail(
        self, method: str, error: Exception | None = None, *, after: bool = False, times: int = 1
    ) -> None:
        """The next `times` calls of `method` raise: before they have an effect, or after it."""
        fault = _Fault(
            error or TokenUnavailableError("injected: the token went away; try again"), after
        )
        self._faults.setdefault(method, deque()).extend([fault] * times)

    def lose(self) -> None:
        """Pulls the token out: every call is unavailable until `restore`."""
        self._lost = True

    def restore(self) -> None:
        self._lost = False

    def beside(self) -> FakeToken:
        """Another replica's way to the same keys."""
        return FakeToken(objects=self.objects)

    def import_secret(self, label: str, value: bytes) -> None:
        """A secret that was once outside: extractable once, not local."""
        with self._lock:
            self.objects[label] = Stored(value, None, strong=False)

    def _run(self, method: str, effect: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls[method] += 1
            if self._lost or self._closed:
                raise TokenUnavailableError(f"the token {self.name!r} is not there; try again")
            pending = self._faults.get(method)
            fault = pending.popleft() if pending else None
            if fault and not fault.after:
                raise fault.error
            result = effect()
            if fault:
                raise fault.error
            return result

    def _find(self, label: str, kind: str, families: Iterable[Family | None]) -> Stored:
        found = self.objects.get(label)
        if found is None or found.family not in families:
            raise KeyMissingError(f"the token {self.name!r} holds no {kind} labelled {label!r}")
        return found

    # The contract

    def hmac(self, label: str, data: bytes) -> bytes:
        return self._run(
            "hmac", lambda: hmac.digest(self._find(label, "secret", [None]).key, data, "sha256")
        )

    def hkdf_hmac(self, label: str, info: bytes, data: bytes) -> bytes:
        if Feature.HKDF_INSIDE not in self.features:
            raise ValueError("this token does not derive inside")

        def effect() -> bytes:
            prk = self._find(label, "secret", [None]).key
            return hmac.digest(
                hmac.digest(prk, info + b"\x01", hashlib.sha256), data, hashlib.sha256
            )

        return self._run("hkdf_hmac", effect)

    def sign(self, label: str, algorithm: pb.Algorithm.ValueType, data: bytes) -> bytes:
        row = check_input(algorithm, data)

        def effect() -> bytes:
            key = self._find(label, f"{row.family.value} private key", [row.family]).key
            hashed = hashes.SHA384() if row.family is Family.P384 else hashes.SHA256()
            digest = utils.Prehashed(hashed)
            match row.scheme:
                case Scheme.ECDSA:
                    return key.sign(data, ec.ECDSA(digest))
                case Scheme.RSA_PSS:
                    return key.sign(data, padding.PSS(padding.MGF1(hashed), 32), digest)
                case Scheme.RSA_PKCS:
                    return key.sign(data, padding.PKCS1v15(), digest)
            return key.sign(data)

        return self._run("sign", effect)

    def generate_secret(self, label: str) -> None:
        self._run(
            "generate_secret",
            lambda: self._add(
                label, lambda: Stored(secrets.token_bytes(SECRET_LEN), None, strong=True)
            ),
        )

    def generate_key_pair(self, label: str, algorithm: pb.Algorithm.ValueType) -> None:
        family = in_token(algorithm).family
        if family is Family.ED25519 and Feature.ED25519 not in self.features:
            raise ValueError(
                f"{self.name} has no Ed25519 keys; choose another algorithm for "
                f"{label!r}, or another token"
            )
        self._run(
            "generate_key_pair",
            lambda: self._add(label, lambda: Stored(_MAKE[family](), family, strong=True)),
        )

    def _add(self, label: str, make: Callable[[], Stored]) -> None:
        if label in self.objects:
            raise KeyExistsError(f"the token {self.name!r} holds a key labelled {label!r} already")
        self.objects[label] = make()

    def public_key(self, label: str) -> bytes:
        def effect() -> bytes:
            public = self._find(label, "key pair", list(Family)).key.public_key()
            return public.public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )

        return self._run("public_key", effect)

    def attributes(self, label: str) -> KeyAttributes:
        def effect() -> KeyAttributes:
            strong = self._find(label, "key", [None, *Family]).strong
            return KeyAttributes(label, True, False, strong, strong, strong)

        return self._run("attributes", effect)

    def labels(self) -> list[str]:
        return self._run("labels", lambda: sorted(self.objects))

    def contents(self) -> TokenContents:
        def effect() -> TokenContents:
            derives = Feature.HKDF_INSIDE in self.features
            found = []
            for label, stored in self.objects.items():
                found += _shown(label, stored, derives)
            return TokenContents(tuple(sorted(found)), self.mechanisms, derives)

        return self._run("contents", effect)

    def destroy(self, label: str) -> None:
        def effect() -> None:
            self._find(label, "key", [None, *Family])
            del self.objects[label]

        self._run("destroy", effect)

    def close(self) -> None:
        self._closed = True
