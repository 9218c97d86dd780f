"""What both ends of a capsign connection agree on: messages, bounds, algorithms, reasons and
identifiers.
"""

__version__ = "0.1.0"
"""Of all distributions: the only place where it stands. Literals elsewhere are compared with it."""
