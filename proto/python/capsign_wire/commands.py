"""Entry points of the four commands. A wheel installs all of them, and an application only needs
what the client needs: one whose libraries are not there says in a line how to get them.
"""

from __future__ import annotations

import sys
from importlib import import_module

from capsign_wire import std_streams


def capsign() -> None:
    _run("capsign", "capsign_cli", "cli", answers=True)


def agent() -> None:
    _run("capsign-agent", "capsign_agent", "agent")


def adapter() -> None:
    _run("capsign-adapter", "capsign_adapter", "adapter")


def injector() -> None:
    _run("capsign-injector", "capsign_injector", "injector")


def _run(command: str, package: str, extra: str, *, answers: bool = False) -> None:
    std_streams.hold(answers=answers)
    try:
        code = import_module(f"{package}.__main__").main()
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{command}: {missing(error, extra)}\n")
        code = 2
    sys.exit(code)


def missing(error: ModuleNotFoundError, extra: str) -> str:
    """What is not installed, and how to install it, as a sentence."""
    name = (error.name or "a library").partition(".")[0]
    return f"It needs {name}, which is not installed. Run: pip install 'capsign[{extra}]'"
