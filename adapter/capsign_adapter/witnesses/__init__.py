"""Witnesses: they are asked to cosign what the log signs, and what they hold is believed against
the store.
"""
