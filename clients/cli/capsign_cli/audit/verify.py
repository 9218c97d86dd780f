"""`capsign audit verify`: an archive, from its signed checkpoint down to the last entry."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from capsign_cli import output
from capsign_cli.audit import place
from capsign_cli.failures import REFUSED, USAGE, CliError

if TYPE_CHECKING:
    from capsign_evidence.archive import Archive

    from capsign_cli.audit.verification import Findings
    from capsign_cli.transparency import Head

ADVICE = "This is an incident: keep the evidence as it is, and tell the auditors."


@dataclass(frozen=True, slots=True)
class Trust:
    """By what a checkpoint is believed."""

    log_key: str | None
    policy: Path | None
    checkpoint: Path | None
    remember: Path | None


@click.command()
@place.options
@click.option(
    "--log-key",
    envvar="CAPSIGN_LOG_KEY",
    help="The log's verifier key (name+id+base64). Also CAPSIGN_LOG_KEY.",
)
@click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A C2SP tlog-policy file: which log's and which witnesses' signatures must be there.",
)
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Verify against this one, as a witness or an agent kept it, and not the archive's own.",
)
@click.option(
    "--remember",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File with the last checkpoint seen; the log must extend it. Needs --log-key.",
)
@output.option
def verify(
    place: str,
    password_file: Path | None,
    log_key: str | None,
    policy: Path | None,
    checkpoint: Path | None,
    remember: Path | None,
) -> None:
    """Verify ARCHIVE offline: the checkpoint's signatures, the tree recomputed from every entry,
    the stored hashes, each agent's batches against their entries and each other, summaries, and
    documents of policies against the digests that entries name.

    Exit code 1 if anything does not hold.
    """
    trust = Trust(log_key, policy, checkpoint, remember)
    if not log_key and policy is None:
        text = "Whose signature should the checkpoint carry?"
        raise CliError(USAGE, "LOG_KEY_MISSING", text, "Give --log-key or --policy.")
    if remember is not None and not log_key:
        text = "What is remembered is held against the log's key."
        raise CliError(USAGE, "LOG_KEY_MISSING", text, "Give --log-key too.")
    with _opened(place, password_file) as archive:
        _verify(archive, trust)


_opened = place.opened


def _verify(archive: Archive, trust: Trust) -> None:
    from capsign_cli.audit import verification
    from capsign_cli.remembered_checkpoint import RememberedCheckpoint

    seen = None
    if trust.remember is not None and trust.log_key:
        seen = RememberedCheckpoint(trust.remember, trust.log_key)
    before = seen.head if seen is not None else None
    note, head, witnesses = _checkpoint(archive, trust)
    if before is not None and before.size > head.size:
        raise CliError(
            REFUSED,
            "EVIDENCE_DOES_NOT_ADD_UP",
            f"The log has shrunk from {before.size} to {head.size} entries.",
            ADVICE,
        )
    with output.progress() as say:
        found = verification.verify(
            archive, head, before, lambda behind, size: say(f"{behind} of {size} entries")
        )
    if seen is not None and not found.count:
        seen.replace(note)
    _tell(found, head, before, witnesses)
    if found.count:
        sys.exit(REFUSED)


def _checkpoint(archive: Archive, trust: Trust) -> tuple[bytes, Head, list[str]]:
    """The newest note that is believed, what it says, and which witnesses cosigned it."""
    given = trust.checkpoint
    notes = [given.read_bytes()] if given is not None else archive.notes()
    if not notes:
        text = "The archive holds no checkpoint: nothing says what its entries should be."
        advice = "Give one that a witness, an agent or an auditor kept: --checkpoint FILE."
        raise CliError(REFUSED, "NO_CHECKPOINT", text, advice)
    refusal: CliError | None = None
    for note in notes:
        try:
            head, witnesses = _believed(note, trust)
        except CliError as error:
            refusal = refusal or error
        else:
            return note, head, witnesses
    assert refusal is not None
    raise refusal


def _believed(note: bytes, trust: Trust) -> tuple[Head, list[str]]:
    from capsign_cli import transparency

    key = trust.log_key
    witnesses: list[str] = []
    if trust.policy is not None:
        from capsign_cli import log_policy

        key, witnesses = log_policy.demanded(trust.policy, note, key)
    assert key
    return transparency.open_checkpoint(note, key), witnesses


def _tell(found: Findings, head: Head, before: Head | None, witnesses: list[str]) -> None:
    values = {
        "verified": not found.count,
        "origin": head.origin,
        "entries": found.entries,
        "covered": head.size,
        "root": head.root.hex(),
        "witnesses": witnesses,
        "extends": before.size if before is not None else None,
        "batches": found.batches,
        "agent_lives": found.lives,
        "summaries": found.summaries,
        "policies": found.policies,
        "policies_lacking": found.lacking,
        "unreadable": found.unreadable,
        "faults": found.count,
    }
    if output.is_json():
        listed = [asdict(fault) for fault in found.faults]
        output.record(values | {"faults": listed, "fault_count": found.count})
        return
    output.record(values)
    for fault in found.faults:
        output.text(f"{fault.kind}: {fault.text}")
    if found.count:
        click.echo(f"  → {ADVICE}", err=True)
