"""Handles as Biscuit tokens: minted here, narrowed by the agent, verified here without a look-up.

The authority block holds the capability as facts, and checks that no later block can lift: Biscuit
lets a block's facts be seen only by that block, so what an agent appends can forbid and never
allow. Appended blocks speak a fixed vocabulary (docs/formats.md, "Handle"); anything else is
refused, which also bounds the work a token can cause.

The capability's times are integers, milliseconds since 1970. What agents append compares `time`, a
Biscuit date of whole seconds, as Biscuit tools everywhere do.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from biscuit_auth import (
    Algorithm,
    AuthorizationError,
    Authorizer,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBuilder,
    KeyPair,
    PrivateKey,
    PublicKey,
)
from capsign_wire.advice import Given
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.decide.admission import Operation, check_life
from capsign_adapter.decide.capability import Capability
from capsign_adapter.decide.handle_facts import CHECKS, capability_in, facts_of

SEED_LEN = 32
"""Length of the mint's seed, bytes."""

MAX_TOKEN_BYTES = 4096
"""Largest token, narrowed or not."""

MAX_BLOCKS = 8
"""Most blocks, the authority block counted."""

MAX_STATEMENTS = 16
"""Most statements in an appended block."""

MAX_OPERATIONS = 64
"""Most operations whose verdict one verified handle remembers."""

# The library's type stubs are behind its code: hence the ignores here.
_ED25519 = Algorithm.Ed25519  # type: ignore[attr-defined]

# The library's default of 1 ms is missed on a busy machine. One second is a bound on damage, not an
# expectation: 60 µs is usual.
MAX_TIME = timedelta(seconds=1)

_OPERATION = """
workload({workload}); cert_key({cert_key}); now_ms({now_ms}); time({time});
algorithm({algorithm}); protocol({protocol}); role({role});
version({version}); transcript({transcript});
allow if true;
"""

# What an agent may append, as the library prints it; docs/formats.md, "Handle".
_NAME = r'"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"'
_FACT = r"check if (?:algorithm|protocol|role|version)\(\$([a-z_]{1,32})\), "
_ONE_OF = re.compile(_FACT + rf"\[{_NAME}(?:, {_NAME}){{0,15}}\]\.contains\(\$\1\)")
_PINNED = re.compile(_FACT + rf"\$\1 == {_NAME}")
_SHORTER = re.compile(
    r"check if time\(\$([a-z_]{1,32})\), \$\1 < (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z", re.ASCII
)

_ROOT_KEY_ID = b"\x08"
"""What a token begins with that has a `rootKeyId`: its tag (Biscuit specification, `schema.proto`).
The mint writes none.
"""

T = TypeVar("T")


class Mint:
    """Makes tokens. The seed is the Ed25519 private key of the mint, 32 bytes, kept by nobody but
    this object.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_LEN:
            raise ValueError("the mint's seed is 32 bytes")
        self._private = PrivateKey.from_bytes(seed, _ED25519)  # type: ignore[call-arg]
        self.public_key = bytes(KeyPair.from_private_key(self._private).public_key.to_bytes())

    def mint(self, capability: Capability) -> bytes:
        """The token of this capability. Raises ValueError if it is above MAX_TOKEN_BYTES, which
        `parse_policy` rules out.
        """
        builder = BiscuitBuilder(CHECKS)
        for fact in facts_of(capability):
            builder.add_fact(fact)
        token = bytes(builder.build(self._private).to_bytes())
        if len(token) > MAX_TOKEN_BYTES:
            raise ValueError(
                f"the grant {capability.grant} gives a token of {len(token)} bytes; split it"
            )
        return token


class Verified:
    """A verified token of this adapter's mint. Safe for any thread.

    `expires_ms` is the capability's expiry or an earlier one to which the agent narrowed the token.
    """

    __slots__ = ("_biscuit", "allowed", "capability", "expires_ms", "max_time")

    def __init__(
        self,
        biscuit: Biscuit,
        capability: Capability,
        expires_ms: int,
        max_time: timedelta = MAX_TIME,
    ) -> None:
        """`max_time`: of one evaluation."""
        self.max_time = max_time
        self._biscuit = biscuit
        self.allowed: frozenset[Operation] = frozenset()
        self.capability = capability
        self.expires_ms = expires_ms

    @property
    def narrowed(self) -> bool:
        """Whether blocks were appended. Such a token is not renewed, since the new one would not be
        narrowed.
        """
        return bool(self._biscuit.block_count() > 1)

    def check_presented(
        self, workload: str, cert_key_hash: bytes, now_ms: int, skew_ms: int
    ) -> None:
        """Raise FailureError HANDLE_STOLEN or HANDLE_EXPIRED unless this peer may present this
        token now.
        """
        mine = hmac.compare_digest(self.capability.cert_key_hash, cert_key_hash)
        if not mine or self.capability.workload != workload:
            whose = (
                "another certificate key"
                if self.capability.workload == workload
                else "another workload"
            )
            raise FailureError(
                failures_pb2.REASON_HANDLE_STOLEN, f"This handle was issued to {whose}."
            )
        check_life(self.capability, now_ms, skew_ms)
        self._check_narrowed_life(now_ms)

    def require(self, operation: Operation, now_ms: int) -> None:
        """Raise FailureError unless the token's checks, minted and appended, all allow this
        operation.

        Verdicts are cached: no statement of the vocabulary allows later what it forbids now. The
        only one that forbids later what it allows now is the expiry, which is compared each time.
        """
        self._check_narrowed_life(now_ms)
        if operation in self.allowed:
            return
        self.evaluate(operation, now_ms)
        # Two threads may both replace the set; what is lost is decided again. Past the bound it
        # starts anew.
        kept = self.allowed if len(self.allowed) < MAX_OPERATIONS else frozenset()
        self.allowed = kept | {operation}

    def _check_narrowed_life(self, now_ms: int) -> None:
        if now_ms >= self.expires_ms:
            raise FailureError(
                failures_pb2.REASON_HANDLE_EXPIRED,
                "The agent gave this handle a shorter life, which is over.",
            )

    def evaluate(self, operation: Operation, now_ms: int) -> None:
        parameters = {
            "workload": self.capability.workload,
            "cert_key": self.capability.cert_key_hash,
            "now_ms": now_ms,
            "time": datetime.fromtimestamp(now_ms // 1000, UTC),
            "algorithm": operation.algorithm,
            "protocol": operation.protocol,
            "role": operation.role,
            "version": operation.protocol_version,
            "transcript": operation.transcript,
        }
        try:
            builder = AuthorizerBuilder(_OPERATION, parameters)
            _bounded(builder, self._biscuit, self.max_time).authorize()
        except AuthorizationError as error:
            raise _narrowed(str(error)) from None


class Verifier:
    """Verifies tokens with the mint's public key (Ed25519, raw, 32 bytes) and nothing else."""

    def __init__(self, public_key: bytes, max_time: timedelta = MAX_TIME) -> None:
        """`max_time`: of one evaluation; one that takes longer has failed, and refuses nothing."""
        self._max_time = max_time
        self._public = PublicKey.from_bytes(public_key, _ED25519)  # type: ignore[call-arg]

    def verify(
        self, token: bytes, workload: str, cert_key_hash: bytes, now_ms: int, skew_ms: int
    ) -> Verified:
        """Returns the handle in this token, presented by this peer.

        Raises FailureError HANDLE_FORGED (not of this mint, altered, or narrowed with unknown
        statements), HANDLE_STOLEN (bound to another peer), HANDLE_EXPIRED, INPUT_TOO_LARGE.
        """
        verified = self.read(token)
        verified.check_presented(workload, cert_key_hash, now_ms, skew_ms)
        return verified

    def read(self, token: bytes) -> Verified:
        """Returns the handle in this token, whoever presents it. Raises FailureError HANDLE_FORGED
        or INPUT_TOO_LARGE.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise FailureError(
                failures_pb2.REASON_INPUT_TOO_LARGE,
                f"A handle has at most {MAX_TOKEN_BYTES} bytes.",
                field="handle",
                given=Given.HANDLE,
            )
        biscuit = _ours(lambda: Biscuit.from_bytes(token, self._public))
        if bytes(biscuit.to_bytes()) != token or token.startswith(_ROOT_KEY_ID):
            # Protobuf skips what it does not know, and a root key id is not signed, so the same
            # signed blocks have many spellings. One is ours.
            raise FailureError(
                failures_pb2.REASON_HANDLE_FORGED, "The handle is not in its canonical form."
            )
        blocks = biscuit.block_count()
        if blocks > MAX_BLOCKS:
            raise _too_large(f"A handle has at most {MAX_BLOCKS} blocks.")
        shorter = [
            _appended(_ours(partial(biscuit.block_source, index))) for index in range(1, blocks)
        ]
        capability = _ours(
            lambda: capability_in(_bounded(AuthorizerBuilder(), biscuit, self._max_time))
        )
        return Verified(
            biscuit,
            capability,
            min([capability.expires_ms, *(end for end in shorter if end is not None)]),
            self._max_time,
        )


def _appended(source: str) -> int | None:
    """The expiry that an appended block states, if it states one. Raises FailureError HANDLE_FORGED
    for unknown statements.
    """
    ends, known, statements = (
        [],
        0,
        [line.removesuffix(";") for line in source.splitlines() if line],
    )
    for line in statements:
        if shorter := _SHORTER.fullmatch(line):
            ends.append(_millis(shorter.group(2)))
        known += bool(shorter or _ONE_OF.fullmatch(line) or _PINNED.fullmatch(line))
    if known != len(statements) or not 1 <= known <= MAX_STATEMENTS:
        raise FailureError(
            failures_pb2.REASON_HANDLE_FORGED,
            "The handle was narrowed in words that this adapter does not know.",
        )
    return min(ends, default=None)


def _millis(date: str) -> int:
    """A date without a zone, which is UTC, in milliseconds since 1970; 0, long over, for one that
    is none.
    """
    try:
        return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1000
    except ValueError:
        return 0


def _bounded(builder: AuthorizerBuilder, biscuit: Biscuit, max_time: timedelta) -> Authorizer:
    limits = builder.limits()  # type: ignore[attr-defined]
    limits.max_time = max_time
    builder.set_limits(limits)  # type: ignore[attr-defined]
    return builder.build(biscuit)


def _too_large(detail: str) -> FailureError:
    reason = failures_pb2.REASON_INPUT_TOO_LARGE
    return FailureError(reason, detail, field="handle", given=Given.HANDLE)


def _ours(read: Callable[[], T]) -> T:
    """Run a step of reading a token. Any error means that this mint did not make it:
    HANDLE_FORGED.
    """
    try:
        return read()
    except (FailureError, MemoryError):
        # what the machine lacks now says nothing about the token, and a verdict is remembered
        raise
    except AuthorizationError as error:
        raise _narrowed(str(error)) from None
    except Exception:
        raise FailureError(
            failures_pb2.REASON_HANDLE_FORGED, "This is not a handle of this adapter's mint."
        ) from None
    except BaseException as error:
        # A panic in the library's Rust code arrives as a BaseException that has no importable name.
        if type(error).__name__ != "PanicException":
            raise
        raise FailureError(
            failures_pb2.REASON_HANDLE_FORGED, "The handle cannot be read."
        ) from None


def _narrowed(failed: str) -> FailureError:
    """The refusal for the checks that the library says failed. An evaluation that did not end is a
    failure, not a refusal.
    """
    if "checks failed" not in failed:
        return FailureError(
            failures_pb2.REASON_OVERLOADED,
            "The handle's checks could not be evaluated in time.",
            retry_after_ms=100,
        )
    if "check if workload(" in failed:
        return FailureError(
            failures_pb2.REASON_HANDLE_STOLEN, "This handle was issued to another holder."
        )
    if "check if time(" in failed or "check if now_ms(" in failed:
        return FailureError(failures_pb2.REASON_HANDLE_EXPIRED, "The handle's life is over.")
    if "check if algorithm(" in failed:
        return FailureError(
            failures_pb2.REASON_ALGORITHM_NOT_ALLOWED,
            "The agent narrowed this handle to other algorithms.",
            field="algorithm",
        )
    return FailureError(
        failures_pb2.REASON_CONTEXT_NOT_ALLOWED,
        "The agent narrowed this handle to another context.",
        field="context",
    )
