"""`python -m capsign_adapter.policy_command`: policies in files, looked at with no adapter running.
`capsign policy` asks it, and prints what it says.

`lint FILE` and `diff OLD NEW` answer in JSON with exit code 0; 2 is wrong use, or no policy, with
the problems on standard error.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from capsign_adapter.decide.policy_change import weakens
from capsign_adapter.decide.policy_diff import summary
from capsign_adapter.decide.policy_lint import lint
from capsign_adapter.decide.policy_load import parse_policy
from capsign_adapter.decide.policy_shape import PolicyError, decode
from capsign_adapter.decide.policy_strength import changes


def main(arguments: list[str]) -> int:
    """The exit code."""
    try:
        match arguments:
            case ["lint", file]:
                found = _lint(Path(file))
            case ["diff", old, new]:
                found = _diff(Path(old), Path(new))
            case _:
                raise PolicyError([])
    except (PolicyError, OSError) as error:
        print(error or "usage: lint FILE | diff OLD NEW", file=sys.stderr)  # noqa: T201 - the answer
        return 2
    print(json.dumps(found))  # noqa: T201 - the answer
    return 0


def _lint(file: Path) -> dict[str, Any]:
    found = lint(parse_policy(_read(file)))
    return {
        "findings": [
            {"path": each.path, "what": each.what, "advice": each.advice} for each in found
        ]
    }


def _diff(old: Path, new: Path) -> dict[str, Any]:
    before, after = _read(old), _read(new)
    for data in (before, after):
        parse_policy(data)
    found = changes(decode(before), decode(after))
    return {
        "changes": [
            {"strength": each.strength.value, "subject": each.subject, "words": each.words}
            for each in found
        ],
        "summary": summary(found),
        "weakens": weakens(found),
    }


def _read(file: Path) -> bytes:
    return file.read_bytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
