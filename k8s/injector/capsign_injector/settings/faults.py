"""What is wrong with settings beyond their types: keys, each with a sentence and its fix. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from capsign_wire import addresses

from capsign_injector import server_settings
from capsign_injector.server_settings import DNS_NAME, OBJECT_NAME
from capsign_injector.settings import profile_faults
from capsign_injector.settings.model import (
    CONFIG_ENV,
    ENDPOINT,
    Adapter,
    EnvVar,
    Identity,
    Profile,
    Settings,
    Telemetry,
)
from capsign_injector.settings.profile_faults import Fault

_PROFILE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RATIO = re.compile(r"0(\.[0-9]{1,12})?|1(\.0{1,12})?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_LOG_KEY = re.compile(r"[^+\s\x00-\x1f]{1,255}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}")
_AUDIENCE = re.compile(r"[!-~]{1,253}")


def faults(given: Settings) -> Iterator[Fault]:
    """All of them, in the order of the file."""
    yield from _form_faults(given)
    yield from _target_faults(given.adapter)
    yield from _name_faults(given)
    yield from _telemetry_faults(given.telemetry)
    yield from _env_faults(given.extra_env)
    yield from _identity_faults(given.identity)
    if not given.bundle_file.startswith("/"):
        yield "bundle_file", "must be an absolute path, for example /etc/capsign/trust/bundle.pem."
    for key, sentence in server_settings.faults(given.server):
        yield f"server.{key}", sentence
    yield from _profiles_faults(given.profiles, given.state_bytes)


def _form_faults(given: Settings) -> Iterator[Fault]:
    if not _IMAGE.fullmatch(given.image):
        yield "image", "must be an image reference such as localhost/capsign-agent:0.1.0."
    if not DNS_NAME.fullmatch(given.trust_domain):
        yield "trust_domain", "must be a SPIFFE trust domain such as cluster.example."
    if not _AUDIENCE.fullmatch(given.audience):
        yield "audience", "must be 1 to 253 printable ASCII characters without spaces."
    if not DNS_NAME.fullmatch(given.adapter.server_name):
        yield "adapter.server_name", "must be a DNS name in lower case."
    if given.adapter.log_key and not _LOG_KEY.fullmatch(given.adapter.log_key):
        yield "adapter.log_key", "must be a verifier key, name+id+key, as `capsign log verify` has."


def _target_faults(adapter: Adapter) -> Iterator[Fault]:
    lists = {"targets": adapter.targets, "enrolment_targets": adapter.enrolment_targets}
    for name, targets in lists.items():
        for index, target in enumerate(targets):
            try:
                addresses.target(target)
            except ValueError as error:
                yield f"adapter.{name}[{index}]", f"{error}."


def _name_faults(given: Settings) -> Iterator[Fault]:
    for index, name in enumerate(given.image_pull_secrets):
        if not OBJECT_NAME.fullmatch(name):
            yield f"image_pull_secrets[{index}]", "must be the name of a Secret."
    for index, path in enumerate(given.harmless_host_paths):
        absolute = path.startswith("/") and ".." not in path.split("/") and path.isprintable()
        if not absolute or not path.strip("/"):
            sentence = "must be an absolute path without `..`, and not the whole node."
            yield f"harmless_host_paths[{index}]", sentence


def _telemetry_faults(given: Telemetry) -> Iterator[Fault]:
    if given.otlp_endpoint and not ENDPOINT.fullmatch(given.otlp_endpoint):
        sentence = "must be http:// or https:// and host:port, such as http://collector:4317."
        yield "telemetry.otlp_endpoint", sentence
    if not _RATIO.fullmatch(given.traces_sample_ratio):
        yield "telemetry.traces_sample_ratio", "must be a number from 0.0 to 1.0, as text."


def _profiles_faults(given: dict[str, Profile], state_bytes: int) -> Iterator[Fault]:
    if "default" not in given:
        yield "profiles", "must have a profile `default`, for pods that name none."
    for name, profile in given.items():
        at = f"profiles.{name[:64]}"
        if not _PROFILE_NAME.fullmatch(name):
            yield at, "must be named with at most 63 lower-case letters, digits, '.' and '-'."
        for key, sentence in profile_faults.faults(profile, state_bytes):
            yield f"{at}.{key}", sentence


def _env_faults(given: tuple[EnvVar, ...]) -> Iterator[Fault]:
    for index, one in enumerate(given):
        at = f"extra_env[{index}]"
        named = _VARIABLE.fullmatch(one.name) and not one.name.startswith("LD_")
        if not named or one.name == CONFIG_ENV:
            sentence = f"must be the name of a variable, and neither {CONFIG_ENV} nor the loader's"
            yield f"{at}.name", f"{sentence} LD_…."
        if one.value and one.field_path:
            yield at, "must have `value` or `field_path`, not both."
        if one.name in {other.name for other in given[:index]}:
            yield f"{at}.name", "is there twice. Keep one."


def _identity_faults(given: Identity) -> Iterator[Fault]:
    if given.source == "kubernetes":
        if given.csi:
            yield "identity.csi", "is for other sources than kubernetes. Remove it."
        return
    if given.csi is None or not OBJECT_NAME.fullmatch(given.csi.driver):
        yield "identity.csi.driver", "must be the name of a CSI driver, such as csi.spiffe.io."
        return
    for name in ("socket", "ca_file", "cert_file", "key_file"):
        if not _FILE_NAME.fullmatch(getattr(given, name)):
            sentence = "must be the name of a file in the volume, without `/`."
            yield f"identity.{name}", sentence
