"""The injector: pod in, patch out, and the server around it."""

__version__ = "0.1.0"
