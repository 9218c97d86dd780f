"""Which log and which witnesses a tlog-policy file (C2SP) demands of a checkpoint.

Unlike what recomputes the tree, this is the code of `capsign_evidence`: what it judges are
signatures of others, which the adapter does not make.
"""

from __future__ import annotations

from pathlib import Path

from capsign_evidence.cosignature import parse_key
from capsign_evidence.note import NoteError, parse_note
from capsign_evidence.tlog_policy import MAX_POLICY_LEN, PolicyError, parse_policy

from capsign_cli.failures import REFUSED, USAGE, CliError


def demanded(file: Path, note: bytes, log_key: str | None) -> tuple[str, list[str]]:
    """The verifier key of the log that signed the checkpoint, and the witnesses of the policy that
    cosigned it. With `log_key`, that log must be the one. Raises CliError.
    """
    try:
        given = parse_key(log_key) if log_key else None
        with file.open("rb") as opened:
            policy = parse_policy(opened.read(MAX_POLICY_LEN + 1))
    except PolicyError as error:
        text = f"{file} is no tlog-policy: {error}."
        raise CliError(USAGE, "POLICY_MALFORMED", text, "See c2sp.org/tlog-policy.") from None
    except NoteError as error:
        text = f"The log key is malformed: {error}."
        raise CliError(USAGE, "LOG_KEY_MALFORMED", text, "Copy it whole.") from None
    try:
        cosigned = policy.open(note, given)
    except NoteError as error:
        text = f"The checkpoint is not what the policy demands: {error}."
        advice = "Do not trust this log until you know why; witnesses that are away come back."
        raise CliError(REFUSED, "CHECKPOINT_INVALID", text, advice) from None
    signed = {(line.name, line.key_id) for line in parse_note(note).lines}
    keys = [log.key for log in policy.logs] if given is None else [given]
    (key, *_) = [one for one in keys if (one.name, one.key_id) in signed]
    return key.text(), sorted(cosigned.witnesses)
