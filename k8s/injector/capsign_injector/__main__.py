"""capsign-injector: the admission webhook."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from capsign_wire import logs, std_streams
from capsign_wire.hardening import harden
from capsign_wire.settings import SettingsError

from capsign_injector import __version__
from capsign_injector import settings as configuration
from capsign_injector.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    std_streams.hold(answers=False)
    harden()  # this memory holds the authority's key
    options = _options(arguments)
    try:
        settings = configuration.parse(_read(options.settings), str(options.settings))
    except SettingsError as error:
        return _say(str(error))
    if options.check_config:
        return _check(settings)
    logs.configure("capsign-injector", level=settings.server.log_level)
    try:
        asyncio.run(_run(settings))
    except OSError as error:
        return _say(
            f"It cannot listen on {settings.server.listen} or {settings.server.health} "
            f"({error.strerror})."
        )
    return 0


async def _run(settings: Settings) -> None:
    from capsign_injector.replica import Injector

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await Injector(settings).run(stop)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="capsign-injector", description="Adds the signing agent to pods that ask for it."
    )
    parser.add_argument("--version", action="version", version=f"capsign-injector {__version__}")
    parser.add_argument("--settings", type=Path, required=True, help="settings file, YAML")
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="try what a start would, change nothing, then end",
    )
    return parser.parse_args(arguments)


def _check(settings: Settings) -> int:
    from capsign_injector import check_config

    try:
        check_config.check(settings)
    except SettingsError as error:
        return _say(str(error))
    sys.stdout.write("The settings are good.\n")
    return 0


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(configuration.MAX_FILE_BYTES + 1)
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise SettingsError(
            f"The settings file {path} cannot be read ({why}). Check the path after --settings."
        ) from None


def _say(sentence: str) -> int:
    sys.stderr.write(f"capsign-injector: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
