"""Chooses the handle of a call from the list that the agent gave. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from capsign_wire.agent.v1 import agent_pb2 as pb
from capsign_wire.algorithms import BY_NAME
from capsign_wire.bounds import check
from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import algorithms_pb2, signing_pb2

from capsign.errors import HandleNotChosen, Refused
from capsign.handle_selector import HandleSelector
from capsign.results import KeyHandle

_OPEN = algorithms_pb2.ALGORITHM_UNSPECIFIED

MAX_TEMPLATES = 1024
"""Most group templates that are cached; at the bound all are dropped. (Each transcript makes a new
one.)
"""


class Template:
    """The part of a SignGroup that its items share. Equal selectors on one handle list give the
    same object.
    """

    __slots__ = ("group",)

    def __init__(self, group: pb.SignGroup) -> None:
        self.group = group


class HandleCache:
    """The handles of one socket as listed last, and the group templates made from them."""

    def __init__(self) -> None:
        # Replaced as a whole: a template stays with the list it was made from, whatever other
        # threads store meanwhile.
        self._book: tuple[tuple[KeyHandle, ...] | None, dict[HandleSelector, Template]] = (None, {})

    @property
    def handles(self) -> tuple[KeyHandle, ...] | None:
        return self._book[0]

    def store(self, handles: Sequence[KeyHandle]) -> tuple[KeyHandle, ...]:
        """Take a new list. The templates are dropped if the ids have changed, as they do when the
        agent restarts.
        """
        taken = tuple(handles)
        known, templates = self._book
        same = known is not None and [handle.id for handle in known] == [
            handle.id for handle in taken
        ]
        self._book = (taken, templates if same else {})
        return taken

    def forget(self, handle_id: str | None = None) -> None:
        """Drop the list. With an id: only if the list has it; if not, the list is newer than the
        refusal of that id.
        """
        if handle_id is None or any(handle.id == handle_id for handle in self.handles or ()):
            self._book = (None, {})

    def template(self, selector: HandleSelector) -> Template | None:
        """The template of a selector; None if the list must be fetched first. It is fetched also
        for a handle that is given by id, because that shows that an agent listens before anything
        is sent to be signed.

        Raises HandleNotChosen, or Refused if an argument breaks its bound: the agent would refuse
        the whole message, with the calls of others in it.
        """
        handles, templates = self._book
        found = templates.get(selector)
        if found is None:
            if handles is None:
                return None
            found = _make(selector, selector.handle or choose(handles, selector).id)
            if len(templates) >= MAX_TEMPLATES:
                templates.clear()
            templates[selector] = found
        return found

    def handle_id(self, selector: HandleSelector) -> str | None:
        """The id of the handle; None if the list must be fetched first. Raises HandleNotChosen."""
        handles = self.handles
        if handles is None:
            return None
        return selector.handle or choose(handles, selector).id


def choose(handles: Sequence[KeyHandle], selector: HandleSelector) -> KeyHandle:
    """The one handle that fits purpose and grant. The algorithm only decides between several, so
    that an algorithm which the handle does not allow is refused, and recorded, by the agent. Raises
    HandleNotChosen.
    """
    fitting = [
        h
        for h in handles
        if selector.purpose in {None, h.purpose} and selector.grant in {None, h.grant}
    ]
    if len(fitting) > 1 and selector.algorithm:
        fitting = [
            handle for handle in fitting if selector.algorithm in handle.algorithms
        ] or fitting
    if len(fitting) == 1:
        return fitting[0]
    asked = ", ".join(
        f"{name}={value!r}"
        for name, value in (("purpose", selector.purpose), ("grant", selector.grant))
        if value
    )
    count = (
        f"{len(fitting)} handles of this socket fit" if fitting else "no handle of this socket fits"
    )
    listing = (
        "; ".join(
            f"grant={h.grant!r} purpose={h.purpose!r} {'/'.join(h.algorithms)}"
            for h in handles[:16]
        )
        or "none"
    )
    raise HandleNotChosen(
        "HANDLE_UNKNOWN",
        f"{count} {asked or 'a call that names no purpose'}. There are: {listing}.",
        advice="Name one of these by grant= or purpose=, or ask for a grant."
        if handles
        else "Ask for a grant in the policy.",
        field="grant" if fitting else "purpose",
        selector=selector,
    )


def context_suffix(selector: HandleSelector) -> signing_pb2.ContextSuffix | None:
    if not (selector.protocol or selector.role or selector.protocol_version or selector.transcript):
        return None
    return signing_pb2.ContextSuffix(
        protocol=selector.protocol,
        role=selector.role,
        protocol_version=selector.protocol_version,
        transcript=selector.transcript,
    )


def _make(selector: HandleSelector, handle_id: str) -> Template:
    group = pb.SignGroup(
        handle_id=handle_id,
        purpose=selector.purpose or "",
        algorithm=BY_NAME[selector.algorithm].number if selector.algorithm else _OPEN,
        open_algorithm=not selector.algorithm,
    )
    context = context_suffix(selector)
    if context is not None:
        group.context.CopyFrom(context)
    probe = pb.SignGroup()
    probe.CopyFrom(group)
    probe.items.add(intent_id=bytes(16), message=b"")
    try:
        check(probe)
    except FailureError as error:
        raise Refused(
            error.row.name,
            error.detail,
            advice=error.advice,
            field=error.field,
            selector=selector,
        ) from None
    return Template(group)
