"""`--check-config`: what a start would meet on this machine. Listens at both addresses for a
moment; asks no API server.
"""

from __future__ import annotations

import time

from capsign_wire.settings import SettingsError

from capsign_injector.certificate import mounted
from capsign_injector.certificate.cluster import Cluster, ClusterError
from capsign_injector.certificate.tls import ServingTls
from capsign_injector.serve.listeners import listening
from capsign_injector.server_settings import Server, address
from capsign_injector.settings import Settings
from capsign_injector.watched_files import FileError


def check(settings: Settings) -> None:
    """Raises SettingsError with a sentence that names the key or file, and the fix."""
    server = settings.server
    for key, text in (("health", server.health), ("listen", server.listen)):
        _listen(key, text)
    try:
        if server.certificate == "own":
            Cluster(server).demand_files()
        if settings.needs_bundle:
            mounted.trust_bundle(settings.bundle_file).current()
    except (ClusterError, FileError) as error:
        raise SettingsError(str(error)) from None
    if server.certificate == "files":
        _serve(server)


def _listen(key: str, text: str) -> None:
    try:
        listening(*address(text)).close()
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        sentence = (
            f"The address {text} of `server.{key}` cannot be listened on ({why}). Is it one "
            f"of this machine, and free?"
        )
        raise SettingsError(sentence, key=f"server.{key}") from None


def _serve(server: Server) -> None:
    fault = mounted.MountedCertificate(server, ServingTls(), time.time).look()
    if fault is not None:
        raise SettingsError(
            f"{fault} See `server.cert_file` ({server.cert_file}) and `server.key_file`.",
            key="server.cert_file",
        )
