"""The whole store, as an engine offers it and `store/open.py` opens it."""

from __future__ import annotations

from typing import Protocol

from capsign_adapter.store.interfaces.authorities import Authorities
from capsign_adapter.store.interfaces.cold import ColdLeaves
from capsign_adapter.store.interfaces.control import ControlState
from capsign_adapter.store.interfaces.database import Database
from capsign_adapter.store.interfaces.drift import Drift, KeyUses
from capsign_adapter.store.interfaces.erasures import Erasures
from capsign_adapter.store.interfaces.evidence import AuditBatches, EvidenceLog
from capsign_adapter.store.interfaces.key_readers import KeyReaders
from capsign_adapter.store.interfaces.key_versions import KeyClaims, KeyVersions
from capsign_adapter.store.interfaces.ledger import Ledger
from capsign_adapter.store.interfaces.policies import Policies
from capsign_adapter.store.interfaces.proposals import Proposals
from capsign_adapter.store.interfaces.reconciliation import ReconciliationStore
from capsign_adapter.store.interfaces.replicas import Replicas
from capsign_adapter.store.interfaces.rollouts import Rollouts
from capsign_adapter.store.interfaces.summaries import Summaries


class Store(
    Ledger,
    ControlState,
    Replicas,
    KeyVersions,
    KeyClaims,
    KeyReaders,
    Erasures,
    Authorities,
    Policies,
    Proposals,
    Rollouts,
    Drift,
    KeyUses,
    ReconciliationStore,
    EvidenceLog,
    AuditBatches,
    ColdLeaves,
    Summaries,
    Database,
    Protocol,
):
    """All interfaces. For modules that open, serve or provision; the others name the parts they
    use.
    """
