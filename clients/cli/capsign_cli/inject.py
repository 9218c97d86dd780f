"""`capsign inject`: does to manifests what the webhook would do to their pods. Offline, for GitOps
and for inspection.

It calls the injector's own pure function; the server around that is never imported.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from capsign_cli.failures import REFUSED, USAGE, CliError
from capsign_cli.manifests import Document, dump, label_misplaced, load, templates
from capsign_cli.output import raw

MAX_INPUT_BYTES = 16 * 1024 * 1024
"""Most bytes of manifests that are read."""


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Manifests; `-` is standard input.",
)
@click.option(
    "--settings",
    "settings_file",
    type=click.Path(path_type=Path),
    help="The injector's settings (YAML); default: those of the chart.",
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Authorities that the agent trusts at first (PEM).",
)
@click.option(
    "-n", "--namespace", default="default", show_default=True, help="For objects that name none."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["yaml", "json", "patch"]),
    default="yaml",
    show_default=True,
)
@click.option("--diff", "show_diff", is_flag=True, help="Show what changes, not the result.")
def inject(
    files: tuple[str, ...],
    settings_file: Path | None,
    bundle: Path | None,
    namespace: str,
    output: str,
    show_diff: bool,
) -> None:
    """Put the agent into labelled pods and workloads, as the webhook would.

    Takes Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, ReplicationControllers, Jobs,
    CronJobs, PodTemplates and Lists; all else passes through. What the platform team should know
    goes to standard error.

    \b
      kubectl get cm -n capsign-system capsign-trust-bundle \\
        -o jsonpath='{.data.bundle\\.pem}' > bundle.pem
      capsign inject -f deployment.yaml --bundle bundle.pem | kubectl apply -f -
      capsign inject -f deployment.yaml --diff
    """
    settings, bundle_pem = _settings(settings_file, bundle)
    if settings.needs_bundle and not bundle_pem:
        _note(
            "No trust bundle is given: the webhook adds it at admission; for a cluster "
            "without the webhook, give --bundle."
        )
    read = [load(_read(name), name) for name in files]
    done = [
        Document(
            number,
            piece,
            piece.value,
            inject_all(piece.value, files[number], namespace, settings, bundle_pem),
        )
        for number, file in enumerate(read)
        for piece in file
        if piece.value is not None
    ]
    if not any(one.changed for one in done):
        _note('Nothing was injected: no pod carries the label capsign.dev/inject: "true".')
    if show_diff:
        _show_diff(done)
    elif output == "patch":
        raw(json.dumps(_patch(done), indent=2).encode() + b"\n")
    else:
        for one in done if output == "yaml" else ():
            if one.written_anew:
                told = (
                    "an anchor, an alias or a repeated key is in what changes, so it is "
                    "written anew, without its comments."
                )
                _note(f"{_title(one)}: {told}")
        raw(dump(read, done, output))  # manifests are UTF-8, whatever the terminal has


def _settings(file: Path | None, bundle: Path | None) -> tuple[Any, str]:
    try:
        from capsign_injector.build.agent_config import certificates
        from capsign_injector.settings import Settings, parse
        from capsign_wire.settings import SettingsError
    except ModuleNotFoundError as error:
        told = f"There is no injector in this installation (module {error.name})."
        raise CliError(
            USAGE,
            "NO_INJECTOR",
            told,
            "Run it where `pip install capsign-cli` was run: it brings the injector's function.",
        ) from None

    try:
        settings = parse(file.read_bytes(), str(file)) if file else Settings()
        pem = bundle.read_text(encoding="utf-8", errors="replace") if bundle else ""
        if bundle and not certificates(pem):
            raise SettingsError("The trust bundle is empty.")
    except SettingsError as error:
        raise CliError(
            USAGE, "SETTINGS", str(error), "The chart's values describe every key."
        ) from None
    return settings, pem


def _read(name: str) -> bytes:
    if name == "-":
        data = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    else:
        with Path(name).open("rb") as file:
            data = file.read(MAX_INPUT_BYTES + 1)
    if len(data) > MAX_INPUT_BYTES:
        raise CliError(
            USAGE, "TOO_LARGE", f"{name} is larger than {MAX_INPUT_BYTES} bytes.", "Split the file."
        )
    return data


def inject_all(document: Any, source: str, namespace: str, settings: Any, bundle_pem: str) -> Any:
    """The document with every labelled pod in it injected; the same object if there is none."""
    from capsign_injector.inject import inject as inject_pod
    from capsign_injector.refusal import Refusal

    for place in templates(document):
        where = place.namespace or namespace
        try:
            result = inject_pod(place.pod, where, settings, bundle_pem)
        except Refusal as refusal:
            told = f"{source}: {place.title}: {refusal.sentence}"
            raise CliError(
                REFUSED, refusal.reason.upper(), told, "The webhook would refuse it too."
            ) from None
        for warning in result.warnings:
            _note(f"{place.title}: {warning}")
        if not result.containers:
            if label_misplaced(place):
                _note(
                    f"{place.title}: the label is on the {place.kind}; put it on "
                    f"spec.template.metadata, where pods get it."
                )
            continue
        document = place.replaced(document, result.pod)
        spec = result.pod["spec"]
        if spec.get("imagePullSecrets") and not place.pod["spec"].get("imagePullSecrets"):
            told = (
                "it names pull secrets now, so Kubernetes adds none of its service "
                "account's. Name in it those that it needs."
            )
            _note(f"{place.title}: {told}")
        # the second is the old name
        account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        identity = f"spiffe://{settings.trust_domain}/ns/{where}/sa/{account}"
        _note(f"{place.title}: {', '.join(result.containers)} may sign as {identity}", mark="✓")
    return document


def _patch(done: list[Document]) -> list[dict[str, Any]]:
    from capsign_injector.build.patch import diff

    changed = [one for one in done if one.changed]
    if len(changed) > 1:
        advice = "Give one object, or use -o yaml."
        raise CliError(
            USAGE,
            "SEVERAL_OBJECTS",
            f"{len(changed)} objects would change; a patch is for one.",
            advice,
        )
    return diff(changed[0].before, changed[0].after) if changed else []


def _show_diff(done: list[Document]) -> None:
    colour = sys.stdout.isatty()
    for one in done:
        if not one.changed:
            continue
        click.secho(f"── {_title(one)} ", bold=True, color=colour)
        for line in _lines(one):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
            click.secho(line, fg=style, color=colour)


def _title(one: Document) -> str:
    return next((place.title for place in templates(one.after)), "document")


def _lines(one: Document) -> Iterator[str]:
    """A unified diff of what changed, with enough context to show where."""
    before, after = (text.splitlines() for text in one.texts())
    for line in list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]:
        yield "   ⋯" if line.startswith("@@") else line


def _note(text: str, mark: str = "!") -> None:
    click.secho(
        f"{mark} {text}",
        err=True,
        fg="green" if mark == "✓" else "yellow",
        color=sys.stderr.isatty() or None,
    )
