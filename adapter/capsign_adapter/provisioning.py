"""`capsign-adapter provision`: makes what the policy names and neither token nor store has yet. It
and `capsign keys` alone make keys.

It replaces nothing, and destroys only what it has just made. A key that the store knows and the
token lacks (or the other way round) stops it, and an operator must look.

Replicas that start together provision together. If two make the same thing, token or store refuse
one of them, which looks again; mostly it then finds everything made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from capsign_wire.failures import FailureError

from capsign_adapter.custody.making import Author, make_version
from capsign_adapter.decide import authority_schedule
from capsign_adapter.decide.policy import Policy
from capsign_adapter.enrol import roll
from capsign_adapter.enrol.roll import Realm
from capsign_adapter.keys import labels, provision
from capsign_adapter.keys.log_keys import demand_known
from capsign_adapter.keys.provision import InventoryError
from capsign_adapter.model.key_versions import KeyVersionRow
from capsign_adapter.model.lifecycle import AuthorityState
from capsign_adapter.sign import policy_in_force
from capsign_adapter.sign.policy_in_force import InForce
from capsign_adapter.store.interfaces.whole import Store
from capsign_adapter.token.interface import KeyMissingError, Token, TokenContestedError

_PASSES = 8
"""Most attempts to make what is missing."""

_LOOK_S = 0.1
"""Between looks at whether another process still makes a key, seconds."""


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def provision_all(
    policy: Policy,
    token: Token,
    store: Store,
    now_ms: int,
    realm: Realm | None = None,
    pause: Callable[[float], object] = _pause,
) -> list[str]:
    """Make what is missing by the policy in force; the labels of what was made. In a store that has
    none this one comes into force. Safe to run again. Raises InventoryError, FailureError,
    TokenError.

    With `realm` there is a certificate authority too. The first one signs at once: nobody holds a
    bundle yet. `pause` waits for so many seconds.
    """
    made: list[str] = []
    for last in (*[False] * (_PASSES - 1), True):
        before = _inventory(token, store)
        try:
            _pass(policy, token, store, now_ms, realm, made)
        except (FailureError, InventoryError, KeyMissingError, TokenContestedError):
            waited_ms = _await_makers(store, now_ms, pause)
            if last or (not waited_ms and _inventory(token, store) == before):
                raise  # nobody made anything meanwhile: looking again would find the same
            now_ms += waited_ms
        else:
            break
    return made


def _await_makers(store: Store, now_ms: int, pause: Callable[[float], object]) -> int:
    """Return once nobody makes a version of a key, or has ended without saying so; milliseconds
    that were waited.
    """
    waited_ms = 0
    while any(now_ms + waited_ms < claim.until_ms for claim in store.key_claims()):
        pause(_LOOK_S)
        waited_ms += int(_LOOK_S * 1000)
    return waited_ms


def _inventory(token: Token, store: Store) -> tuple[object, ...] | None:
    """What changes whenever somebody makes something; None while somebody does."""
    try:
        return token.labels(), store.key_versions(), store.authorities(), store.key_claims()
    except TokenContestedError:
        return None


def _pass(
    policy: Policy, token: Token, store: Store, now_ms: int, realm: Realm | None, made: list[str]
) -> None:
    """Make what is missing now; `made` gets the label of each."""
    rows = store.key_versions()
    held = set(token.labels())
    if not {labels.LOG, labels.MINT} & held:
        _refuse_on_used_store(store, "The token has no log key and no mint secret.")
        provision.make_service_keys(token)
        made += [labels.LOG, labels.MINT, labels.LOG_ROOT]
    elif labels.LOG in held and labels.LOG_ROOT not in held:
        # a token of before this release; where the log has signed with that key it was lost
        latest = store.latest_checkpoint()
        if latest is not None:
            demand_known(latest.note, quantum_safe=False)
        provision.make_log_root(token)
        made.append(labels.LOG_ROOT)
    policy_in_force.begin(store, policy, now_ms)
    policy = policy_in_force.read(store, InForce(0, policy)).policy
    author = Author(f"spiffe://{policy.trust_domain}/adapter/provision", policy.digest)
    erased = {one.tenant for one in store.erasures()}
    for tenant in sorted({*policy.tenants} - erased):
        label = labels.pepper(tenant)
        if label not in held:
            _refuse_on_known_tenant(rows, tenant)
            _refuse_on_spent_tenant(held, tenant)
            provision.make_pepper(token, tenant)
            made.append(label)
    for key in policy.keys:
        made_before = any((row.tenant, row.key) == (key.tenant, key.name) for row in rows)
        if key.tenant not in erased and not made_before:
            row, _, _ = make_version(key, token, store, author, now_ms, newest=0)
            made.append(row.label)
    if realm is not None:
        _first_authority(token, store, realm, now_ms, made)
    tenants = sorted({*policy.tenants} - erased)
    provision.assert_inventory(token, store.key_versions(), tenants, store.authorities())


def _first_authority(
    token: Token, store: Store, realm: Realm, now_ms: int, made: list[str]
) -> None:
    if not store.authorities():
        made.append(roll.prepare((), token, store, realm, now_ms).label)
    rows = store.authorities()
    # also one whose maker died before this line
    if all(row.state == AuthorityState.PREPARED for row in rows):
        step = authority_schedule.due(rows, realm.lifetimes, now_ms)
        if step is not None:
            roll.take(step, rows, token, store, realm, now_ms)


def _refuse_on_used_store(store: Store, finding: str) -> None:
    if store.control().tree_size > 0:
        raise InventoryError([finding, "The store already holds evidence."])


def _refuse_on_known_tenant(rows: list[KeyVersionRow], tenant: str) -> None:
    if any(row.tenant == tenant for row in rows):
        raise InventoryError(
            [f"The token has no pepper for the tenant {tenant}, whose keys the store knows."]
        )


def _refuse_on_spent_tenant(held: set[str], tenant: str) -> None:
    """Its pepper was destroyed, and the store is of before that, or is another one."""
    if labels.has_versions_of(tenant, held):
        raise InventoryError(
            [
                f"The token has no pepper for the tenant {tenant}, of whose keys it holds versions "
                "or their numbers: a tenant of that name was erased, or its pepper is lost."
            ]
        )
