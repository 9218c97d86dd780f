"""An adapter that is broken on purpose: of every tenth signature it records something else than it
releases.
"""

from __future__ import annotations

from typing import Any

from capsign_adapter import __main__
from capsign_adapter.model.lifecycle import IntentEvent
from capsign_adapter.store import sqlite


def install() -> None:
    """The leaf of a refusal goes into the log in place of the signature's."""
    commit = sqlite.SqliteStore.commit

    def forgetful(store: Any, epoch: int, drafts: Any, now_ms: int) -> Any:
        kept = [
            draft._replace(leaf=draft.refusal_leaf(1))
            if draft.event is IntentEvent.SIGN and at % 10 == 0
            else draft
            for at, draft in enumerate(drafts)
        ]
        return commit(store, epoch, kept, now_ms)

    sqlite.SqliteStore.commit = forgetful


if __name__ == "__main__":
    install()
    __main__.main()
