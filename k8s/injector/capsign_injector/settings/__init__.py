"""The injector's settings: what they are, what can be wrong with them, how they are read. Pure."""

from __future__ import annotations

from capsign_injector.settings.file import MAX_FILE_BYTES, parse
from capsign_injector.settings.model import (
    CONFIG_ENV,
    ENDPOINT,
    Adapter,
    Csi,
    EnvVar,
    Identity,
    MaySet,
    Profile,
    Settings,
    Telemetry,
)

__all__ = [
    "CONFIG_ENV",
    "ENDPOINT",
    "MAX_FILE_BYTES",
    "Adapter",
    "Csi",
    "EnvVar",
    "Identity",
    "MaySet",
    "Profile",
    "Settings",
    "Telemetry",
    "parse",
]
