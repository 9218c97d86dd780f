"""The client for threads."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Self

from capsign_wire import unix_socket

from capsign import requests
from capsign.agent_socket import AgentSocket
from capsign.agent_status import AgentStatus
from capsign.call import (
    Ask,
    Call,
    Found,
    Sleep,
    Step,
    Submit,
    asking,
    asking_status,
    clock,
    cut_off,
    listing,
    receiving,
    resolving,
    signing,
)
from capsign.channel import CONNECT_SLICE
from capsign.connection import Connection, of_the_parent
from capsign.errors import CapsignError
from capsign.handle_selector import HandleSelector
from capsign.handles import HandleCache
from capsign.inputs import Buffer, IntentId, algorithm_row, item, row_or_open, selector_of
from capsign.receipts import Receipt
from capsign.reports import TIMEOUT_S, Report, Reporter
from capsign.results import KeyHandle, KeySet, PublicKey, Resolution, Signature
from capsign.signature_rule import Given, Rule, Signatures, verifying
from capsign.socket_address import socket_path
from capsign.tracing import current_traceparent
from capsign.translate import key_handle, key_set, public_key

DEFAULT_TIMEOUT = 10.0
"""Seconds."""

WINDOW = 2
"""Messages in flight while calls gather; see clients/python/README.md for the measurement."""


class Signer:
    """Signs through the agent of this pod. Safe for any number of threads, and after a fork.

    `socket` is the path of the agent's socket or a `unix:` address; without it CAPSIGN_SOCKET is
    read. Nothing is opened before the first call. Concurrent calls share messages on one stream;
    with `coalesce=False` each call is an RPC of its own. `timeout` is the default of every call,
    seconds; `connect_timeout` the most of it that a call waits for an agent that has never answered
    this signer. Close it, or use it in a `with` statement.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        coalesce: bool = True,
        window: int = WINDOW,
        connect_timeout: float = CONNECT_SLICE,
    ) -> None:
        path = socket_path(socket)
        self._target, self._agent_socket = (
            unix_socket.target(path),
            AgentSocket(path, requests.seconds(connect_timeout, CONNECT_SLICE)),
        )
        self._timeout = timeout
        self._coalesce = coalesce
        self._window = requests.messages_in_flight(window)
        self._book = HandleCache()
        self._connection: Connection | None = None
        self._opening = threading.Lock()
        self._finalizer: Callable[[], Any] | None = None
        self._closed = False
        here = weakref.ref(self)

        def tell(report: Report) -> None:
            # its thread must not keep one alive that nobody else holds any more
            signer = here()
            if signer is not None:
                signer._told(report)

        self._reporter = Reporter(tell)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Tell the last reports, for at most a second, and end the stream. Calls that wait raise
        Unavailable if they were not sent and Unknown if they were.

        A signal handler may call this; it may not sign, for it may have interrupted a call that
        holds what signing needs.
        """
        self._reporter.close()
        self._closed = True
        if self._finalizer is not None:
            self._finalizer()

    def sign(
        self,
        message: Buffer | None = None,
        *,
        digest: Buffer | None = None,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        intent_id: IntentId | None = None,
        timeout: float | None = None,
    ) -> Signature:
        """Sign a message, or a digest of it where the algorithm signs digests. Without `algorithm`
        it is left open: the key's rollout decides, and while two keys sign the second signature is
        in `others`.

        The handle is the one that fits `purpose` and `grant`, or `handle`. The context (`protocol`,
        `role`, `protocol_version` and `transcript`, 32 bytes) may be left out where the handle pins
        it. `intent_id` (UUIDv7) sends an intent again: the same id gives the same bytes.
        Unavailable outcomes are repeated until `timeout` (seconds, the agent sees at most 60).

        Raises Refused, Unavailable or Unknown.
        """
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        entry = item(row_or_open(algorithm), message, digest, intent_id)
        try:
            outcome = self._drive(
                signing(
                    self._book,
                    selector,
                    [entry],
                    requests.seconds(timeout, self._timeout),
                    current_traceparent(),
                )
            )[0]
        except CapsignError as error:
            raise requests.concerning(error, entry.intent_id, selector) from None
        if isinstance(outcome, CapsignError):
            raise outcome
        return outcome

    def sign_many(
        self,
        messages: Sequence[Buffer] = (),
        *,
        digests: Sequence[Buffer] = (),
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        intent_ids: Sequence[IntentId] | None = None,
        timeout: float | None = None,
    ) -> list[Signature | CapsignError]:
        """Sign messages (or digests) in one context; one result for each, in order.

        A result is a Signature or the CapsignError of that item: one bad item does not fail its
        neighbours, so look at each. What concerns all of them (no such handle, a context that is
        malformed, no agent) is raised.
        """
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        many = requests.Many(row_or_open(algorithm), messages, digests, intent_ids)
        outcomes = self._drive(
            signing(
                self._book,
                selector,
                many.items,
                requests.seconds(timeout, self._timeout),
                current_traceparent(),
            )
        )
        return many.merged(outcomes)

    def verify(
        self,
        message: Buffer | None,
        signature: Given,
        *,
        rule: Rule = "either",
        required: Collection[str] = (),
        digest: Buffer | None = None,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        timeout: float | None = None,
    ) -> PublicKey:
        """The public key under which the signature verifies. Raises InvalidSignature if it verifies
        under none.

        `signature` may have two: a Signature with another in `others`, or a list of Signatures or
        of (algorithm, bytes). By the rule "either" one that is good is enough; by "both" two must
        be good, by two keys. `required` names algorithms by each of which one must be good: two
        keys of the algorithm that is to be left behind are none of the new one. Where one is
        missing, InvalidSignature has the reason SIGNATURE_MISSING.

        `algorithm` may be left out when `signature` is a Signature; with it that one alone is
        looked at. ES256 and ES384 signatures are DER, not JOSE's R || S.
        """
        signatures = Signatures(signature, algorithm, rule, required)

        def selector(name: str) -> HandleSelector:
            return selector_of(
                purpose, grant, handle, name, protocol, role, protocol_version, transcript
            )

        left = requests.seconds(timeout, self._timeout)
        return self._drive(verifying(self._book, selector, (message, digest), signatures, left))

    def public_keys(
        self,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        timeout: float | None = None,
    ) -> list[PublicKey]:
        """The public keys of a context, one for each key version that verifiers should know, newest
        first.
        """
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        build = requests.key_query(selector, algorithm_row(algorithm))
        response = self._drive(
            asking(
                self._book,
                selector,
                "GetPublicKeys",
                build,
                requests.seconds(timeout, self._timeout),
            )
        )
        return [public_key(key) for key in response.keys]

    def jwks(
        self,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        timeout: float | None = None,
    ) -> KeySet:
        """The public keys of a context as a JWK Set, with every algorithm of the grant and every
        version that verifiers should know: for who verifies without the agent, or hands them on.
        """
        selector = selector_of(purpose, grant, handle, "", protocol, role, protocol_version)
        build, left = requests.jwks_query(selector), requests.seconds(timeout, self._timeout)
        found = self._drive(asking(self._book, selector, "GetJwks", build, left))
        return key_set(found)

    def report_verification(
        self,
        kid: str,
        ok: bool,
        *,
        count: int = 1,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str,
        protocol: str = "",
        role: str = "",
        protocol_version: str = "",
        transcript: Buffer = b"",
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell that `count` signatures by the key `kid` of this context did, or did not, verify:
        who verifies without the agent keeps a rollout from going on where verifiers fail. It is
        counted at least once.

        It returns at once: reports wait up to a second for company and are told in the background,
        the last of them when this is closed. With `wait` it returns when the agent has it, and
        raises Refused if the context has no such key, Unavailable, or Unknown.
        """
        selector = selector_of(
            purpose, grant, handle, algorithm, protocol, role, protocol_version, transcript
        )
        row, told = (
            algorithm_row(algorithm),
            Report(selector, kid, count if ok else 0, 0 if ok else count),
        )
        requests.report(selector, row, told)("checked")
        if wait:
            self._told(told, requests.seconds(timeout, self._timeout))
        else:
            self._reporter.add(told)

    def _told(self, report: Report, left: float = TIMEOUT_S) -> None:
        """Tell the agent of one."""
        row = algorithm_row(report.selector.algorithm)
        build = requests.report(report.selector, row, report)
        self._drive(asking(self._book, report.selector, "ReportVerifications", build, left))

    def resolve(
        self,
        intent: IntentId | CapsignError,
        *,
        purpose: str | None = None,
        grant: str | None = None,
        handle: str | KeyHandle | None = None,
        algorithm: str = "",
        timeout: float | None = None,
    ) -> Resolution:
        """What became of an intent: `Done` with the stored signature, `WasRefused`, or `Never`, and
        never is final.

        Give the Unknown that was raised, and nothing else is needed; or an intent id and the handle
        it was sent with. Raises Unknown if that cannot be learnt now, whatever the reason is;
        Refused only for what is no intent id.
        """
        intent_id, selector = requests.intent_parts(
            intent, selector_of(purpose, grant, handle, algorithm)
        )
        return self._drive(
            resolving(self._book, selector, intent_id, requests.seconds(timeout, self._timeout))
        )

    def receipt(
        self,
        of: Signature | IntentId,
        *,
        leaf_index: int = 0,
        timeout: float | None = None,
    ) -> Receipt:
        """The proof that an intent's entry is in the evidence log (C2SP tlog-proof), of a
        signature, or of an intent id; it waits, within the timeout, until a checkpoint covers it.

        An intent older than the ledger's retention is found by `leaf_index`, which a Signature
        has. Nothing is verified here: see `Receipt`. Raises Refused or Unavailable.
        """
        request = requests.receipt_query(of, leaf_index)
        left = requests.seconds(timeout, self._timeout)
        response = self._drive(receiving(request, left))
        return requests.receipt(response, of, request.intent_id)

    def status(self, *, timeout: float | None = None) -> AgentStatus:
        """How the agent is: what keeps it from signing, what it has seen of the evidence log.

        Raises Unavailable if nobody answers.
        """
        return self._drive(asking_status(requests.seconds(timeout, self._timeout)))

    def handles(self, *, timeout: float | None = None) -> tuple[KeyHandle, ...]:
        """What this socket may sign, asked for afresh."""
        return self._drive(listing(self._book, clock() + requests.seconds(timeout, self._timeout)))

    def _drive(self, call: Call[Found]) -> Found:
        connection = self._open()
        step: Step = next(call)
        while True:
            try:
                step = call.send(self._perform(connection, step))
            except StopIteration as stop:
                found: Found = stop.value
                return found

    def _open(self) -> Connection:
        connection = self._connection
        if connection is not None and connection.current and not self._closed:
            return connection
        if connection is not None and connection.pid != os.getpid():
            # The lock of the parent may be held by a thread that does not exist here.
            self._opening = threading.Lock()
        with self._opening:
            if self._closed:
                raise RuntimeError("this Signer is closed")
            if self._connection is None or not self._connection.current:
                self._book.forget()
                book = self._book
                fresh = Connection(
                    self._target,
                    self._agent_socket,
                    self._window,
                    lambda answer: book.store([key_handle(one) for one in answer.handles]),
                )
                if self._connection is not None:
                    of_the_parent.append(self._connection)
                self._connection = fresh
                self._finalizer = weakref.finalize(self, self._connection.close)
            return self._connection

    def _perform(self, connection: Connection, step: Step) -> Any:
        # without the signer's knowledge when the process ends
        if self._closed or connection.stream.closing.begun:
            return cut_off(step)
        try:
            return self._do(connection, step)
        except ValueError:
            # gRPC's word for a channel that was closed just now
            if connection.stream.closing.begun:
                return cut_off(step)
            raise

    def _do(self, connection: Connection, step: Step) -> Any:
        if isinstance(step, Submit):
            if self._coalesce:
                return connection.stream.run(step.jobs)
            return [connection.sign(job) for job in step.jobs]
        if isinstance(step, Ask):
            return (
                connection.list_handles(step)
                if step.method == "ListHandles"
                else connection.ask(step)
            )
        assert isinstance(step, Sleep)
        connection.stream.closing.wait(step.seconds)
        return None
