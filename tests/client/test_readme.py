"""The README's examples run, in order, in one process."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "clients/python/README.md"


def test_the_examples_run(agent, monkeypatch, capsys):
    monkeypatch.setenv("CAPSIGN_SOCKET", str(agent.path))
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) >= 6
    names: dict = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)  # noqa: S102  # our own README
    names["signer"].close()
    assert names["failed"] == []
    assert len(names["signatures"]) == 64
    assert "BEGIN PUBLIC KEY" in capsys.readouterr().out
