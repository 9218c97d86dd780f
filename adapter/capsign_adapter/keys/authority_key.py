"""A certificate authority's key as an object of `cryptography` that signs in the token.

`EllipticCurvePrivateKey` is the interface that `cryptography` documents for keys that are kept
elsewhere; its certificate builder accepts any implementation.
"""

from __future__ import annotations

import hashlib
from typing import NoReturn

from capsign_wire.types.v1 import algorithms_pb2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.utils import Buffer

from capsign_adapter.token.interface import Token


class AuthorityKey(ec.EllipticCurvePrivateKey):
    """The P-256 key pair with this label. One token call when it is made, one for each signature.
    Raises TokenError.
    """

    def __init__(self, token: Token, label: str) -> None:
        public = load_der_public_key(token.public_key(label))
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(
            public.curve, ec.SECP256R1
        ):
            raise ValueError("an authority's key is P-256")
        self._public = public
        self._token = token
        self._label = label

    def sign(self, data: Buffer, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Returns an ECDSA signature with SHA-256 over `data`, DER. The digest is computed here,
        the signature in the token.
        """
        wanted = signature_algorithm.algorithm
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(wanted, hashes.SHA256):
            raise ValueError("an authority signs with ECDSA and SHA-256")
        return self._token.sign(
            self._label, algorithms_pb2.ALGORITHM_ES256, hashlib.sha256(data).digest()
        )

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise _stays()

    def private_numbers(self) -> NoReturn:
        raise _stays()

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the name is cryptography's
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        raise _stays()

    def __copy__(self) -> AuthorityKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> AuthorityKey:
        return self


def _stays() -> TypeError:
    return TypeError("the key of an authority signs certificates and stays in the token")
