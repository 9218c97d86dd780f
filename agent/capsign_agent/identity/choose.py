"""The source that the configuration names."""

from __future__ import annotations

from capsign_agent.config import Config
from capsign_agent.identity.account import Account
from capsign_agent.identity.enrolment import Enrolment
from capsign_agent.identity.files import FilesIdentity, read
from capsign_agent.identity.kubernetes import Adapter, KubernetesIdentity
from capsign_agent.identity.source import IdentitySource
from capsign_agent.identity.trust import injected
from capsign_agent.identity.workload_api import WorkloadApiIdentity


def source_of(config: Config, adapter: Adapter, account: Account) -> IdentitySource:
    """Raises SettingsError if it cannot work as configured."""
    identity = config.identity
    if identity.kubernetes is not None:
        enrolment = Enrolment(identity.kubernetes.enrolment_targets, config.upstream)
        return KubernetesIdentity(identity.kubernetes, enrolment, adapter, account)
    if identity.workload_api is not None:
        return WorkloadApiIdentity(identity.workload_api, account)
    assert identity.files is not None  # `config` refuses settings without the section of the source
    return FilesIdentity(identity.files, account)


def check(config: Config) -> None:
    """Look at what can be judged without being an agent: files, the injected bundle. Raises SettingsError, changes nothing."""
    identity = config.identity
    if identity.files is not None:
        read(identity.files)
    if identity.kubernetes is not None:
        injected(identity.kubernetes.bundle)
