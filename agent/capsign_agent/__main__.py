"""capsign-agent: the sidecar."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from capsign_wire import logs, settings, std_streams

from capsign_agent import __version__, process
from capsign_agent import config as configuration


def main(arguments: list[str] | None = None) -> int:
    std_streams.hold(answers=False)
    process.harden()
    options = _options(arguments)
    try:
        config = configuration.load(options.config, os.environ)
    except settings.SettingsError as error:
        return _say(str(error))
    if options.check_config:
        return _check(config)
    if options.split_views:
        return _tell_split_views(config)
    logs.configure("capsign-agent", level=config.telemetry.log_level)
    return _run(config)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="capsign-agent", description="Signs for the containers of a pod; holds no key."
    )
    parser.add_argument("--version", action="version", version=f"capsign-agent {__version__}")
    parser.add_argument(
        "--config",
        type=Path,
        help="settings file, TOML; without it the text in CAPSIGN_AGENT_CONFIG",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="try what a start would, change nothing, then end",
    )
    parser.add_argument(
        "--split-views",
        action="store_true",
        help="print what adapters showed that contradicts the log as this agent knows it, then end",
    )
    return parser.parse_args(arguments)


def _check(config: configuration.Config) -> int:
    from capsign_agent import check_config

    try:
        check_config.check(config)
    except settings.SettingsError as error:
        return _say(str(error))
    sys.stdout.write("The configuration is good.\n")
    return 0


def _tell_split_views(config: configuration.Config) -> int:
    from capsign_agent.witness.memory import WitnessMemory

    for one in WitnessMemory(config.journal.dir).split_views():
        sys.stdout.write(one.encode().decode())
    return 0


def _run(config: configuration.Config) -> int:
    import uvloop

    from capsign_agent.agent import Agent
    from capsign_agent.front.sockets import SocketError
    from capsign_agent.journal.directory import JournalError

    async def live() -> bool:
        agent = Agent(config)
        try:
            return await agent.run()
        finally:
            process.leave_word(agent.last_word)

    try:
        stopped_as_asked = uvloop.run(live())
    except (settings.SettingsError, SocketError, JournalError) as error:
        return _say(str(error))
    return 0 if stopped_as_asked else 1


def _say(sentence: str) -> int:
    sys.stderr.write(f"capsign-agent: {sentence}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
