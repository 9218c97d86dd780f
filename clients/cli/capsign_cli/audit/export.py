"""`capsign audit export`: evidence for a SIEM, a collector or analysts, at least once."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click
from capsign_wire.shown_url import without_secrets

from capsign_cli import numbers, output
from capsign_cli.audit import conditions, place
from capsign_cli.audit.parameters import Ago
from capsign_cli.failures import UNAVAILABLE, USAGE, CliError

if TYPE_CHECKING:
    from types import FrameType

    from capsign_evidence.archive import Archive
    from capsign_evidence.archive.selection import Selection

    from capsign_cli.audit.export_cursor import Cursor
    from capsign_cli.audit.export_endpoint import Meaning
    from capsign_cli.audit.export_sinks import Sink

FORMATS = ("ocsf-jsonl", "ocsf-otlp", "parquet", "jsonl")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
HEADERS = ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")


@click.command()
@place.options
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="OCSF as JSON lines or over OTLP, Parquet files, or events as `query -o json` has them.",
)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="File for JSON lines (default: standard output), directory for Parquet.",
)
@click.option(
    "--endpoint",
    envvar=ENDPOINTS,
    help="For OTLP: http(s)://HOST[:PORT][/PATH].  [env: OTEL_EXPORTER_OTLP_ENDPOINT]",
)
@click.option(
    "--protocol",
    type=click.Choice(("grpc", "http/protobuf")),
    default="grpc",
    show_default=True,
    envvar=("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    help="For OTLP.",
)
@click.option(
    "--set-aside",
    type=click.Path(path_type=Path, dir_okay=False),
    help="For OTLP: file for events that are too large for the receiver, as JSON lines.",
)
@click.option(
    "--ca",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Certificates that a receiver over TLS must have one of.",
)
@click.option(
    "--cursor",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File that keeps how far it has come; the same command goes on from there.",
)
@click.option("--origin", help="The log's name, where no checkpoint says it.")
@click.option("--follow", is_flag=True, help="Go on as the log grows, until it is ended.")
@click.option(
    "--alive",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --follow: file that is touched at each attempt, for a liveness probe.",
)
@click.option(
    "--poll", type=numbers.Seconds(0.1, 3600), default=5.0, show_default=True, help="Seconds."
)
@click.option(
    "--timeout",
    type=numbers.Seconds(0.1, 600),
    default=30.0,
    show_default=True,
    help="Seconds that one attempt at a receiver may take.",
)
@click.option(
    "--give-up",
    type=numbers.Seconds(0, 86_400),
    default=300.0,
    show_default=True,
    help="Seconds after which a receiver that takes nothing ends the export; not with --follow.",
)
@conditions.options
@conditions.read_all
@output.option
def export(place: str, password_file: Path | None, form: str, follow: bool, **options: Any) -> None:
    """Write what happened, for others to keep: every event, none sampled, at least once.

    ARCHIVE is as for `capsign audit query`, and so are the conditions. Each event has an id that
    stays the same (`metadata.uid`, `log.record.uid`, `uid`), so that a receiver can drop what it
    has. The cursor is written only after the sink took what is before it: an export that was ended
    at any moment goes on without a gap. It keeps the times too: --since and --until as 2h are what
    they were when the first run began.
    """
    from capsign_cli.audit.export_cursor import Cursor, CursorFile
    from capsign_cli.audit.export_run import Export, Patience

    selection = conditions.selection(options)
    with _opened(place, password_file) as archive, output.progress() as say:
        origin = _origin(archive, options["origin"])
        file = CursorFile(options["cursor"])
        sink = _sink(form, origin, options)
        cursor = file.read(
            Cursor(
                origin,
                _purpose(form, options),
                since_ms=selection.since_ms,
                until_ms=selection.until_ms,
            )
        )
        selection = _as_begun(selection, cursor)
        patience = Patience(options["poll"], None if follow else options["give_up"])
        run = Export(archive, selection, sink, file, cursor, patience, say)
        run.summaries = not options["read_all"]
        try:
            if follow:
                signal.signal(signal.SIGTERM, _end)
                with run.status.exported(options["alive"]):
                    run.follow()
            run.check()
            run.once()
        finally:
            sink.close()
    if options["to"] is not None or form == "ocsf-otlp":
        values = {"events": run.cursor.events, "leaf": run.cursor.leaf, "origin": origin}
        text = f"Exported {run.cursor.events:,} events, up to leaf {run.cursor.leaf:,}."
        if aside := getattr(sink, "set_aside", 0):
            values["set_aside"] = aside
            text += f" {aside:,} of them are too large for the receiver: see --set-aside."
        output.line(values, text)


_opened = place.opened


def _as_begun(selection: Selection, cursor: Cursor) -> Selection:
    """The selection between the times of the cursor. What is later than those is behind the cursor
    all the same, and is said to be left out.
    """
    if cursor.until_ms < selection.until_ms:
        from capsign_evidence.archive.events import time_text

        text = f"Up to {time_text(cursor.until_ms)}, as when it began; later needs another cursor."
        click.echo(text, err=True)
    return replace(selection, since_ms=cursor.since_ms, until_ms=cursor.until_ms)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends as Ctrl-C does: the cursor stands where the sink took it."""
    raise KeyboardInterrupt


def _origin(archive: Archive, given: str | None) -> str:
    origin = given or archive.origin
    if not origin:
        text = "The archive has no checkpoint, which would say the log's name."
        raise CliError(UNAVAILABLE, "NO_CHECKPOINT", text, "Give the name: --origin NAME.")
    return origin


def _purpose(form: str, options: Mapping[str, Any]) -> str:
    """What is exported to where, in one line: a cursor is good for this alone."""
    given = {
        name: value
        for name, value in sorted(options.items())
        if value not in (None, False, (), "") and name not in _NO_PURPOSE
    }
    words = [form, *(f"{name}={_word(value)}" for name, value in given.items())]
    return without_secrets(" ".join(words))


_NO_PURPOSE = frozenset(
    {
        *("cursor", "ca", "poll", "timeout", "give_up", "protocol", "origin", "since", "read_all"),
        *("set_aside", "alive"),
    }
)
"""What may be another the next time: where it began is behind the cursor then."""


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_word, value))
    if isinstance(value, Ago):
        return value.said
    return value.hex() if isinstance(value, bytes) else str(value)


def _sink(form: str, origin: str, options: Mapping[str, Any]) -> Sink:
    from capsign_evidence.archive.events import described

    from capsign_cli.audit.export_ocsf import ocsf, uid_of
    from capsign_cli.audit.export_sinks import LinesSink

    to: Path | None = options["to"]
    match form:
        case "ocsf-jsonl":
            return LinesSink(to, lambda event: ocsf(origin, event))
        case "jsonl":
            return LinesSink(to, lambda event: {"uid": uid_of(origin, event), **described(event)})
        case "parquet":
            return _parquet(to, origin)
    return _otlp(origin, options)


def _parquet(to: Path | None, origin: str) -> Sink:
    if to is None:
        raise CliError(USAGE, "NO_PLACE", "Parquet goes into a directory.", "Give --to DIR.")
    from capsign_cli.audit.export_parquet import ParquetSink

    try:
        return ParquetSink(to, origin)
    except ModuleNotFoundError:
        raise _missing("duckdb", "analytics") from None


def _otlp(origin: str, options: Mapping[str, Any]) -> Sink:
    endpoint: str | None = options["endpoint"]
    if not endpoint:
        text = "Which receiver of OTLP?"
        raise CliError(USAGE, "NO_PLACE", text, f"Give --endpoint, or {ENDPOINTS[1]}.")
    try:
        from capsign_cli.audit.export_otlp import OtlpSink
        from capsign_cli.audit.export_transport import GrpcTransport, HttpTransport
    except ModuleNotFoundError:
        raise _missing("opentelemetry-proto", "otlp") from None
    from capsign_cli.audit.export_endpoint import Endpoint
    from capsign_cli.audit.export_ocsf import ocsf
    from capsign_cli.audit.export_sinks import LinesSink

    to = Endpoint(endpoint, options["timeout"], options["ca"], _headers(), _meaning())
    over_grpc = options["protocol"] == "grpc"
    send = GrpcTransport(to) if over_grpc else HttpTransport(to)
    aside: Path | None = options["set_aside"]
    return OtlpSink(
        send,
        lambda event: ocsf(origin, event),
        origin,
        LinesSink(aside, lambda event: ocsf(origin, event)) if aside else None,
    )


def _meaning() -> Meaning:
    """What the endpoint's path means: the argument's, or that of the variable that click took."""
    from capsign_cli.audit.export_endpoint import Meaning

    source = click.get_current_context().get_parameter_source("endpoint")
    if source is not click.core.ParameterSource.ENVIRONMENT:
        return Meaning.GIVEN
    return Meaning.LOGS if os.environ.get(ENDPOINTS[0]) else Meaning.BASE


def _headers() -> dict[str, str]:
    """What OTEL_EXPORTER_OTLP_HEADERS says, as OpenTelemetry writes it: secrets are not arguments,
    which everybody on a machine can read.
    """
    text = next((os.environ[name] for name in HEADERS if os.environ.get(name)), "")
    pairs = (one.partition("=") for one in text.split(",") if "=" in one)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _missing(library: str, extra: str) -> CliError:
    text = f"This needs {library}, which is not installed."
    return CliError(USAGE, "NOT_INSTALLED", text, f"Run: pip install 'capsign-cli[{extra}]'")
