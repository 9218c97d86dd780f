"""Evidence at rest, read by whoever investigates: the store or a copy of it, or the log as files.

Nothing here needs an adapter, an HSM or a network. `open_archive` picks the reader.
"""

from capsign_evidence.archive.interface import Archive, ArchiveError
from capsign_evidence.archive.opening import open_archive

__all__ = ["Archive", "ArchiveError", "open_archive"]
