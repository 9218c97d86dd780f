"""The settings and the trust bundle under which the injector's tests run."""

from __future__ import annotations

from pathlib import Path

from capsign_injector.settings import parse

FILE = Path(__file__).parents[1] / "injector" / "settings.yaml"
SETTINGS = parse(FILE.read_bytes(), FILE.name)
BUNDLE = (
    "-----BEGIN "
    "CERTIFICATE-----\n"
    "TWFuIGlzIGRpc3Rpbmd1aXNoZWQsIG5vdCBvbmx5IGJ5IGhpcyByZWFzb24=\n"
    "-----END CERTIFICATE-----\n"
)
