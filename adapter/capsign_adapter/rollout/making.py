"""Makes the version that a rollout leads to."""

from __future__ import annotations

from collections.abc import Callable

from capsign_wire.failures import FailureError
from capsign_wire.types.v1 import failures_pb2

from capsign_adapter.custody.making import Author, KeyStore, make_version
from capsign_adapter.decide.policy import Policy
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.rollout.acts import Maker
from capsign_adapter.token.interface import Token


def maker(
    policy: Callable[[], Policy], token: Token, store: KeyStore, clock: Callable[[], int]
) -> Maker:
    """What makes versions on this replica. It raises FailureError NOT_FOUND if policy has no such
    key, and what `make_version` raises.
    """

    def make(actor: str, tenant: str, name: str, newest: int) -> KeyVersionRow:
        rules = policy()
        key = rules.key(tenant, name)
        if key is None:
            detail = f"The policy has no key {tenant}/{name}."
            raise FailureError(failures_pb2.REASON_NOT_FOUND, detail, field="key")
        author = Author(actor, rules.digest)
        row, _, _ = make_version(key, token, store, author, clock(), newest=newest)
        return row

    return make
