"""What entries of the evidence log record, by numbers that are never reused (`docs/formats.md`)."""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What an entry records: its second byte. Numbers are never reused."""

    SIGNED = 1
    """A signature was made."""
    REFUSED = 2
    """A request under a verified handle was refused."""
    ADMIN = 3
    """Somebody with a role changed something."""
    AGENT_BATCH = 4
    """A batch of an agent's own records was taken."""
    NEVER = 5
    """An intent that had not happened was closed: it never will."""
    REFUSED_UNBOUND = 6
    """A request was refused before any handle of it could be verified."""
    IDENTITY_ISSUED = 7
    """A certificate was issued to a pod."""
    IDENTITY_REFUSED = 8
    """A certificate was asked for and refused."""
    SIGNED_TWICE = 9
    """One call was answered with two signatures, each under its own key version."""
    ROLLOUT_STEP = 11
    """A rollout began, went on, paused or ended; `rollout_leaf` has the bytes."""
    VERIFICATIONS_REPORTED = 13
    """Somebody reported how signatures verified elsewhere; `rollout_leaf` has the bytes."""
    PROPOSAL = 10
    """Something that needs two people was proposed, or its proposal moved on."""
    DRIFT = 12
    """What is expected was found to differ, or does not differ any more; `drift_leaf` has the
    bytes.
    """
    INCIDENT = 14
    """Records do not add up, or do again; `incident_leaf` has the bytes."""
    RETIRED = 15
    """Leaves were moved from the store to cold files; `retired_leaf` has the bytes."""


class Act(IntEnum):
    """Administrative acts. Numbers are never reused; 10 and up are 10 +
    capsign.adapter.v1.RevocationKind.
    """

    KEY_CREATED = 1
    KEY_ACTIVATED = 2
    KEY_SUSPENDED = 3
    KEY_DEACTIVATED = 4
    KEY_COMPROMISED = 5
    KEY_DESTROYED = 6
    KEY_RESUMED = 7
    KEY_PUBLISHED = 8
    HANDLE_REVOKED = 11
    GRANT_REVOKED = 12
    WORKLOAD_REVOKED = 13
    KEY_REVOKED = 14
    TENANT_REVOKED = 15
    EVERYTHING_REVOKED = 16
    KEY_VERSION_REVOKED = 17
    POLICY_APPLIED = 20
    LOG_OPENED = 21
    POLICY_PROPOSED = 22
    POLICY_FILE_DIFFERS = 23
    """The file of a replica is another document than the version in force. Not written any more:
    it is drift of the kind POLICY_FILE.
    """
    POLICY_ENDED = 24
    """A version that was proposed does not come into force."""
    AUTHORITY_PREPARED = 30
    AUTHORITY_ACTIVATED = 31
    AUTHORITY_RETIRED = 32
    KEY_GONE = 35
    """The token was shown to hold nothing of a destroyed version any more."""
    KEY_MOVE_REFUSED = 36
    """Somebody with the role asked for a move that the table does not have."""
    ROLLOUT_STARTED = 50
    ROLLOUT_PROPAGATES = 51
    ROLLOUT_CANARY = 52
    ROLLOUT_WIDENED = 53
    ROLLOUT_SIGNS_TWICE = 54
    ROLLOUT_PROMOTED = 55
    ROLLOUT_RETIRES = 56
    ROLLOUT_DONE = 57
    ROLLOUT_PAUSED = 58
    ROLLOUT_DOUBTED = 59
    ROLLOUT_RESUMED = 60
    ROLLOUT_ABORTED = 61
    ROLLOUT_ROLLED_BACK = 62
    ROLLOUT_OVERTAKEN = 63
    ROLLOUT_MOVE_REFUSED = 64
    """The same of a rollout."""
    PROPOSAL_MOVE_REFUSED = 65
    """The same of a proposal."""
    PROPOSED = 40
    APPROVED = 41
    REJECTED = 42
    PROPOSAL_EXPIRED = 43
    CALLED_OFF = 44
    BROKE_GLASS = 45
    REVOCATION_LIFTED = 46
    GLASS_ACKNOWLEDGED = 47
    PROPOSAL_EXECUTED = 48
    PROPOSAL_OVERTAKEN = 49
    DRIFT_FOUND = 70
    DRIFT_GONE = 71
    UNKNOWN_OBJECT = 72
    """A difference was found: an object in the token that nothing accounts for."""
    INCIDENT_CLOSED = 73
    """Somebody looked into an incident that does not end by itself, and closed it."""
    SIGNATURE_REPORTED = 74
    """Somebody handed in a signature that no entry is about."""
    COMMITMENTS_TOLD = 90
    """Somebody was told the commitments of a message of a tenant."""
    TENANT_ERASED = 91
    PEPPER_GONE = 92
    """The token was shown to hold no pepper of an erased tenant any more."""


class ProposedAct(IntEnum):
    """What a proposal is about: the numbers of capsign.adapter.v1.ProposalAct, never reused."""

    POLICY = 1
    KEY_DESTROY = 2
    REVOCATION_LIFT = 3
    TENANT_ERASE = 4


class GlassReason(IntEnum):
    """Why one person acted alone: the numbers of capsign.adapter.v1.GlassReason, never reused."""

    NONE = 0
    """The glass is whole."""
    ATTACK = 1
    OUTAGE = 2
    MISTAKE = 3
    DRILL = 4


PROPOSAL_ACTS = frozenset(
    {
        Act.PROPOSED,
        Act.APPROVED,
        Act.REJECTED,
        Act.PROPOSAL_EXPIRED,
        Act.CALLED_OFF,
        Act.BROKE_GLASS,
        Act.GLASS_ACKNOWLEDGED,
        Act.PROPOSAL_EXECUTED,
        Act.PROPOSAL_OVERTAKEN,
    }
)
"""What happens to a proposal: an entry of kind PROPOSAL has one of these acts."""
