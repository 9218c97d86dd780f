"""What goes into which image. Paths are relative to the repository, destinations to the image's
root.
"""

from __future__ import annotations

from dataclasses import dataclass

PYTHON = "3.11"
"""The Python of the base image; wheels are chosen for it."""

GLIBC = 36
"""The minor version of the base's glibc 2.x (bookworm): wheels may need no newer one."""

SUITE = "bookworm"
BASE_PACKAGES = ("base-files", "python3", "libgcc-s1", "libstdc++6", "zlib1g")
"""The last three: what manylinux wheels expect of a system besides glibc (PEP 599), gRPC's among
them.
"""

ADAPTER_PACKAGES = ("libsofthsm2", "libsodium23")
"""What the adapter has besides the base: a token for trials, and what signs Ed25519 faster."""


@dataclass(frozen=True)
class Image:
    """One image: its own packages, its files, its commands. Dependencies:
    requirements/<name>.lock, and the locks of `extras`.
    """

    name: str
    title: str
    description: str
    packages: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    """Command and the module whose `main` it runs."""
    files: tuple[tuple[str, str], ...] = ()
    softhsm: bool = False
    extras: tuple[str, ...] = ()
    """Extras of the package that are in, each with a lock: requirements/<name>-<extra>.lock."""

    @property
    def locks(self) -> tuple[str, ...]:
        """The locks of its dependencies, by their names in `requirements`."""
        return (f"{self.name}.lock", *(f"{self.name}-{extra}.lock" for extra in self.extras))

    @property
    def reference(self) -> str:
        return f"localhost/capsign-{self.name}"


AGENT = Image(
    name="agent",
    title="capsign-agent",
    description="capsign's sidecar: signs for the containers of a pod; holds no key",
    packages=(
        "proto/python/capsign_wire",
        "evidence/capsign_evidence",
        "agent/capsign_agent",
    ),
    commands=(("capsign-agent", "capsign_agent.__main__"),),
    files=(("agent/capsign_agent/probe.py", "opt/capsign/probe.py"),),
    extras=("native",),
)

ADAPTER = Image(
    name="adapter",
    title="capsign-adapter",
    description="capsign's signer: the only process that logs in to "
    "the HSM; with the capsign command",
    packages=(
        "proto/python/capsign_wire",
        "evidence/capsign_evidence",
        "adapter/capsign_adapter",
        "clients/python/capsign",
        "clients/cli/capsign_cli",
    ),
    commands=(("capsign-adapter", "capsign_adapter.__main__"), ("capsign", "capsign_cli.__main__")),
    files=(
        ("softhsm/init.py", "opt/capsign/softhsm/init.py"),
        ("softhsm/softhsm2.conf.template", "opt/capsign/softhsm/softhsm2.conf.template"),
    ),
    softhsm=True,
)

INJECTOR = Image(
    name="injector",
    title="capsign-injector",
    description="capsign's admission webhook: puts the agent into labelled pods",
    packages=("proto/python/capsign_wire", "k8s/injector/capsign_injector"),
    commands=(("capsign-injector", "capsign_injector.__main__"),),
)

IMAGES = {image.name: image for image in (AGENT, ADAPTER, INJECTOR)}
