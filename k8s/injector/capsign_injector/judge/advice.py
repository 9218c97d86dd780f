"""Warnings: what a pod may do but should not. Pure."""

from __future__ import annotations

from capsign_injector.read.pod import Pod
from capsign_injector.settings import Settings

SHORT_GRACE_S = 5
"""Seconds of `terminationGracePeriodSeconds` below which the agent may not deliver all its
records.
"""


def warnings(pod: Pod, settings: Settings) -> list[str]:
    """The warnings for the person who applies the pod."""
    found = []
    host = settings.cluster_name
    if host:
        if pod.spec.dns_policy == "Default":
            told = (
                f"With `dnsPolicy: Default` the pod asks its node's name servers, which do "
                f"not know {host}."
            )
            found.append(f"{told} Its agent would never start. Remove it, or use ClusterFirst.")
        elif pod.spec.dns_policy == "None":
            told = (
                f"With `dnsPolicy: None` the agent starts only if the servers in `dnsConfig` "
                f"know {host}:"
            )
            found.append(
                f"{told} name the cluster's, and its domain (cluster.local) in `searches`."
            )
    grace = pod.spec.termination_grace_period_seconds
    if grace is not None and grace < SHORT_GRACE_S:
        fix = f"Give it {SHORT_GRACE_S} or more."
        found.append(
            f"With `terminationGracePeriodSeconds: {grace}` the agent may end before its "
            f"records are handed in. {fix}"
        )
    if pod.spec.resources is not None:
        found.append("The pod has `resources` of its own: they must leave room for the agent's.")
    return found
