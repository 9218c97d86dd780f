"""A replica of the release before results were sealed meets one that a newer replica stored. Runs
on the sources of that release; says what came of it as JSON.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from pathlib import Path

from capsign_evidence.leaf_reader import Signed, decode
from capsign_wire.intents import new_intent_id
from support.adapter_rig import APP, AdapterRig


def main(directory: Path) -> None:
    rig = AdapterRig(directory)
    intent, neighbour = new_intent_id(), new_intent_id()
    rig.sign(b"m", intents=[intent])
    with contextlib.closing(sqlite3.connect(directory / "store.db")) as database, database:
        ((result,),) = database.execute("SELECT result FROM intents").fetchall()
        database.execute("UPDATE intents SET result = ?", (b"\x02" + result[1:],))
    answered, raised = 0, ""
    try:
        answered = sum(
            len(one.signatures) for one in rig.sign(b"m", b"n", intents=[intent, neighbour])
        )
    except Exception as error:
        raised = type(error).__name__
    entries = [decode(entry) for entry in rig.entries()]
    signed = [one.intent_id for one in entries if isinstance(one, Signed)]
    kept = rig.store.find(APP, [neighbour])
    told = {
        "answered": answered,
        "raised": raised,
        "of_intent": signed.count(intent),
        "of_neighbour": signed.count(neighbour),
        "neighbour_kept": len(kept),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
