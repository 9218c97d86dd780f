"""Settings from the bytes of their file. Pure."""

from __future__ import annotations

from typing import Any

import yaml
from capsign_wire import settings
from capsign_wire.settings import SettingsError

from capsign_injector.settings.faults import faults
from capsign_injector.settings.model import Profile, Settings

MAX_FILE_BYTES = 256 * 1024
"""Largest settings file, bytes."""


def parse(data: bytes, source: str) -> Settings:
    """The checked settings in a YAML file's bytes; `source` is its name for messages. Raises
    SettingsError, a sentence that names the key and the fix.
    """
    tree = _tree(data, source)
    if isinstance(tree.get("profiles"), dict):
        for name, profile in tree["profiles"].items():
            settings.check(profile, Profile, source, at=f"profiles.{str(name)[:64]}")
    checked = settings.check(tree, Settings, source)
    for key, sentence in faults(checked):
        raise SettingsError(f"{source}: the key `{key}` {sentence}", key=key)
    return checked


def _tree(data: bytes, source: str) -> dict[str, Any]:
    if len(data) > MAX_FILE_BYTES:
        raise SettingsError(
            f"{source} is larger than {MAX_FILE_BYTES} bytes. Is it the right file?"
        )
    try:
        tree = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{source} is not YAML{where}. Correct it there.") from None
    except RecursionError:
        raise SettingsError(f"{source} is nested too deeply. Is it the right file?") from None
    if tree is None:
        tree = {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise SettingsError(
            f"{source} must be a mapping of settings. See `values.yaml` of the chart, "
            f"`injector.settings`."
        )
    return tree
