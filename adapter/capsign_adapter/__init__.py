"""The adapter: the only process that may log in to the HSM. It decides, derives, signs, commits and answers."""

__version__ = "0.1.0"
