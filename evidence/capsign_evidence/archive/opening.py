"""Which archive a place is."""

from __future__ import annotations

from pathlib import Path

from capsign_wire.shown_url import without_secrets

from capsign_evidence.archive.interface import Archive, ArchiveError


def open_archive(place: str | Path, password_file: Path | None = None) -> Archive:
    """The archive at a place: a SQLite file (also as sqlite://PATH); a postgresql:// URL, whose
    password may be in a file; a directory of tiles; or one of the first two and, after a comma,
    the directory that its first leaves were moved to.

    Raises ArchiveError, also if there is none. Close it, or use it as a context manager.
    """
    text = str(place)
    store, comma, cold = text.rpartition(",")
    if comma and Path(cold).is_dir() and not Path(text).exists():
        from capsign_evidence.archive.joined import JoinedArchive
        from capsign_evidence.archive.tile_files import TileFiles

        held = open_archive(store, password_file)
        try:
            return JoinedArchive(TileFiles(Path(cold)), held)
        except BaseException:
            held.close()
            raise
    if text.startswith(("postgresql://", "postgres://")):
        from capsign_evidence.archive.postgres_server import PostgresArchive

        return PostgresArchive(text, password_file)
    path = Path(text.removeprefix("sqlite://"))
    if path.is_dir():
        from capsign_evidence.archive.tile_directory import DirectoryArchive

        return DirectoryArchive(path)
    if path.is_file():
        from capsign_evidence.archive.sqlite_file import SqliteArchive

        return SqliteArchive(path)
    raise ArchiveError(
        f"{without_secrets(text)} is no store.",
        "Name a copy of the store's file, the postgresql:// URL of a store, or a directory of "
        "tiles.",
    )
