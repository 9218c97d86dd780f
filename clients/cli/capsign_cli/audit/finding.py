"""Finds events in an archive, agents' records by what policies say of their grants too, and warns
where the archive does not hold all policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.events import Event
    from capsign_evidence.archive.scan import Looked
    from capsign_evidence.archive.selection import Selection


def find(
    archive: Archive,
    selection: Selection,
    *,
    leaves: range | None = None,
    summaries: bool = True,
    tell: Callable[[Looked], None] = lambda _: None,
) -> Iterator[Event]:
    """As `capsign_evidence.archive.scan.find`."""
    from capsign_evidence.archive import scan
    from capsign_evidence.archive.attribution import ReadPolicies

    from capsign_cli.audit.policy_grants import grants_in

    return scan.find(
        archive,
        selection,
        leaves=leaves,
        summaries=summaries,
        tell=tell,
        policies=ReadPolicies(grants_in, _warn),
    )


def _warn(missing: int) -> None:
    click.echo(
        f"Warning: the archive lacks {missing} of the policies that were in force. What agents "
        "recorded under a grant that only those have is not found by tenant or key: ask with "
        "--workload or --grant too, or read the store, or copy the log anew.",
        err=True,
    )
