"""Makes the identity source that the configuration names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from capsign_wire.settings import SettingsError

from capsign_agent.config import Config
from capsign_agent.identity.enrolment import Enrolment
from capsign_agent.identity.events import IdentityEvents
from capsign_agent.identity.files import FilesIdentity, demand_valid, read
from capsign_agent.identity.kubernetes import Adapter, KubernetesIdentity, read_token
from capsign_agent.identity.source import IdentityError, IdentitySource
from capsign_agent.identity.trust import injected
from capsign_agent.identity.workload_api import WorkloadApiIdentity, reachable
from capsign_agent.timing import Timing
from capsign_agent.writable import obstacle


def source_of(
    config: Config, adapter: Adapter, events: IdentityEvents, timing: Timing
) -> IdentitySource:
    """The configured source. Raises SettingsError if it cannot work as configured."""
    identity = config.identity
    if identity.kubernetes is not None:
        enrolment = Enrolment(identity.kubernetes.enrolment_targets, config.upstream)
        return KubernetesIdentity(identity.kubernetes, enrolment, adapter, events, timing)
    if identity.workload_api is not None:
        return WorkloadApiIdentity(identity.workload_api, events, timing)
    assert identity.files is not None  # `config` refuses settings without the section of the source
    return FilesIdentity(identity.files, events, timing)


def check(config: Config, now: float) -> None:
    """Check what the source would need on this machine, without changing anything or asking an
    adapter. Raises SettingsError.
    """
    identity = config.identity
    if identity.files is not None:
        demand_valid(identity.files, read(identity.files), now)
    kubernetes, workload_api = identity.kubernetes, identity.workload_api
    if kubernetes is not None:
        injected(kubernetes.bundle)
        hindrance = obstacle(kubernetes.state_dir)
        if hindrance:
            key = "identity.kubernetes.state_dir"
            sentence = (
                f"The directory {kubernetes.state_dir} of `{key}` {hindrance}. Set it to a "
                f"volume of the agent's own."
            )
            raise SettingsError(sentence, key=key)
        _explained("identity.kubernetes.token_file", read_token, kubernetes.token_file)
    if workload_api is not None:
        _explained("identity.workload_api.socket", reachable, workload_api.socket)


def _explained(key: str, look: Callable[[Path], object], path: Path) -> None:
    try:
        look(path)
    except IdentityError as error:
        raise SettingsError(f"{error} It is `{key}`.", key=key) from None
