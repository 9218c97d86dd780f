"""The policy in force, as the store has it: begun from the first document, and read again when it
is another.
"""

from __future__ import annotations

from dataclasses import dataclass

from capsign_evidence import leaf
from capsign_evidence.leaf_kinds import Act
from capsign_wire import logs

from capsign_adapter.decide.policy import Policy
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError
from capsign_adapter.decide.policy_versions import target_of
from capsign_adapter.model.policies import PolicyDraft, PolicyVersionRow
from capsign_adapter.store.errors import StoreUnavailableError
from capsign_adapter.store.interfaces.policies import Policies


class PolicyUnreadableError(StoreUnavailableError):
    """The store has a policy that this release cannot decide by. Nothing is decided then: another
    policy, such as the one in a file, would be a choice that nobody made.
    """


@dataclass(frozen=True, slots=True)
class InForce:
    """A policy, and the version as which it is in force; 0: as none yet."""

    version: int
    policy: Policy


def begin(store: Policies, policy: Policy, now_ms: int) -> PolicyVersionRow:
    """Put this policy in force as version 1, in a store that has none; what is in force. Of
    replicas that start together one is first, and the others find its document.
    """
    actor = f"spiffe://{policy.trust_domain}/adapter/provision"
    row = store.first_policy(
        draft_of(policy, 0, actor),
        lambda epoch: leaf.admin(
            now_ms,
            policy.digest,
            Act.POLICY_APPLIED,
            actor,
            target_of(1, policy.digest),
            epoch,
        ),
        now_ms,
    )
    if row.digest != policy.digest:
        logs.warning("policy.file_differs", version=row.version)
    return row


def draft_of(policy: Policy, base: int, proposer: str) -> PolicyDraft:
    """This policy as a version to be, compared with version `base`."""
    return PolicyDraft(policy.digest, policy.document, base, proposer)


def read(store: Policies, known: InForce | None) -> InForce:
    """What is in force. Where that is what is known nothing is parsed: it takes its time. A `known`
    of version 0 is what would become the first version of a store that has none.

    Raises PolicyUnreadableError, and what the store raises.
    """
    row = store.policy_in_force()
    if row is None:
        if known is not None and not known.version:
            return known
        raise PolicyUnreadableError(
            "The store has no policy in force. Start an adapter or run `capsign-adapter provision` "
            "with the first one."
        )
    if known is not None and known.policy.digest == row.digest:
        return known if known.version == row.version else InForce(row.version, known.policy)
    document = store.policy_document(row.version)
    try:
        return InForce(row.version, parse_policy(document or b""))
    except PolicyError as error:
        raise PolicyUnreadableError(
            f"Version {row.version} of the policy is in force and cannot be read by this release: "
            f"run the release that it was applied with. {error}"
        ) from None
