"""Notes when functions begin and end, in processes that `bench.profile` starts: Python imports this
module at its start where the folder is in PYTHONPATH.

The variable BENCH_MARKS names a directory. Each process writes a file into it when it ends: lines
of nanoseconds of the monotonic clock, and the name of the mark.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

MARKS = {
    "capsign_agent.front.servicer": {"SigningServicer.answer": "agent"},
    "capsign_agent.upstream.batch": {"Batch.request": "request"},
    "capsign_agent.sign.outcomes": {"OutcomeRecorder.answered": "answered"},
    "capsign_adapter.sign.pipeline": {"Pipeline.run": "pipeline"},
    "capsign_adapter.sign.commit": {"Commits.commit": "commit"},
    "capsign_adapter.store.sqlite": {"SqliteStore._commit": "disk"},
}
"""By module: methods, and the marks made of them, `<mark>.begin` and `<mark>.end`."""

seen: list[tuple[int, str]] = []
MOST = 2_000_000


def note(name: str) -> None:
    """Make a mark now."""
    if len(seen) < MOST:
        seen.append((time.monotonic_ns(), name))


def _marked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    begin, end = f"{name}.begin", f"{name}.end"
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def waits(*given: Any, **named: Any) -> Any:
            note(begin)
            try:
                return await function(*given, **named)
            finally:
                note(end)

        return waits

    @functools.wraps(function)
    def runs(*given: Any, **named: Any) -> Any:
        note(begin)
        try:
            return function(*given, **named)
        finally:
            note(end)

    return runs


class _MarkingLoader(Loader):
    """Loads a module as usual, then marks its methods."""

    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._usual.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._usual.exec_module(module)
        for path, name in MARKS[module.__name__].items():
            owner, _, method = path.partition(".")
            place = getattr(module, owner)
            setattr(place, method, _marked(getattr(place, method), name))


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in MARKS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _MarkingLoader(spec.loader)
        return spec


def _write() -> None:
    if seen:
        lines = "".join(f"{at} {name}\n" for at, name in seen)
        (Path(os.environ["BENCH_MARKS"]) / f"{os.getpid()}.marks").write_text(lines)


if os.environ.get("BENCH_MARKS"):
    sys.meta_path.insert(0, _Finder())
    atexit.register(_write)
