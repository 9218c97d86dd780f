"""Looks at the token: everything in it, beside what the store accounts for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from capsign_wire.types.v1 import signing_pb2

from capsign_adapter.decide.drift import bounded
from capsign_adapter.decide.drift_token import Accounted, of_token
from capsign_adapter.drift.key_checks import Checked, KeyChecks
from capsign_adapter.keys.accounting import accounted
from capsign_adapter.model.authorities import AuthorityRow
from capsign_adapter.model.drift import Difference, TokenContents
from capsign_adapter.model.erasures import Erasure
from capsign_adapter.model.key_versions import KeyClaim, KeyVersionRow
from capsign_adapter.token.interface import Token


class Stored(Protocol):
    """What is needed of the store; see `store.interfaces`."""

    def key_versions(self) -> list[KeyVersionRow]: ...

    def authorities(self) -> list[AuthorityRow]: ...

    def key_claims(self) -> list[KeyClaim]: ...

    def erasures(self) -> list[Erasure]: ...


@dataclass(frozen=True, slots=True)
class TokenView:
    """What a look saw."""

    contents: TokenContents
    accounted: Accounted
    authorities: tuple[AuthorityRow, ...]
    differences: frozenset[Difference]


def view(
    token: Token, store: Stored, tenants: Callable[[], tuple[str, ...]], checks: KeyChecks
) -> TokenView:
    """Looks once. Raises what token and store raise.

    The token is read first: what it holds by then was claimed before it was made, and recorded
    before its claim ended.
    """
    contents = token.contents()
    claims = store.key_claims()
    rows, authorities = tuple(store.key_versions()), tuple(store.authorities())
    known = accounted(rows, tenants(), authorities, claims, store.erasures())
    replaced = checks.differences(token, _checked(rows, authorities), len(contents.objects))
    found = [*of_token(contents, known), *replaced]
    return TokenView(contents, known, authorities, frozenset(bounded(found)))


def confirmed(
    token: Token,
    store: Stored,
    tenants: Callable[[], tuple[str, ...]],
    checks: KeyChecks,
    known: frozenset[Difference],
    pause: Callable[[], None],
) -> TokenView:
    """Looks, and if there is something that is not in `known` looks once more after `pause`: only
    what is there both times is told. An authority or a pepper is in the token a moment before the
    store or the policy says so. Raises what token and store raise.
    """
    first = view(token, store, tenants, checks)
    if first.differences <= known:
        return first
    pause()
    again = view(token, store, tenants, checks)
    both = again.differences & (first.differences | known)
    return TokenView(again.contents, again.accounted, again.authorities, both)


def _checked(
    rows: tuple[KeyVersionRow, ...], authorities: tuple[AuthorityRow, ...]
) -> Iterator[Checked]:
    """Keys whose check value is known."""
    for row in rows:
        if row.state != signing_pb2.KEY_STATE_DESTROYED:
            yield Checked(row.label, row.check_value, row.derived)
    for authority in authorities:
        if not authority.retired_ms:
            yield Checked(authority.label, authority.check_value, False)
