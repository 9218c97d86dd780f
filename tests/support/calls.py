"""Calls as gRPC's context tells a servicer of them, without a connection."""

from __future__ import annotations

from functools import cache
from typing import Any, NoReturn

import grpc
from capsign_wire.failures import FailureError
from support.ca import Authority


@cache
def authority() -> Authority:
    return Authority()


@cache
def certificate(spiffe_id: str, key: bytes) -> bytes:
    """PEM. The same for the same identity and name of a key."""
    return authority().issue(spiffe_id).certificate


class EndedError(grpc.RpcError):
    """What a caller gets of a call that a servicer ended."""

    def __init__(self, code: grpc.StatusCode, details: str, trailing: Any) -> None:
        self._status = code, details, trailing

    def code(self) -> grpc.StatusCode:
        return self._status[0]

    def details(self) -> str:
        return self._status[1]

    def trailing_metadata(self) -> Any:
        return self._status[2]


class FakeCall:
    """A unary call over TLS 1.3, whose answer is taken at once."""

    def __init__(self, spiffe_id: str, key: bytes = b"") -> None:
        """`key` names the key of the peer's certificate, where it has several."""
        self.spiffe_id = spiffe_id
        self.key = key
        self._certificate = certificate(spiffe_id, key)
        self._trailing: Any = ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {"ssl_tls_version": [b"TLSv1.3"], "x509_pem_cert": [self._certificate]}

    def add_callback(self, _: Any) -> bool:
        return False

    def set_trailing_metadata(self, trailing: Any) -> None:
        self._trailing = trailing

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """Raises the FailureError that a caller would read from the status."""
        told = FailureError.from_rpc(EndedError(code, details, self._trailing))
        assert told is not None
        raise told
