"""Audit records: on disk before the agent answers, then to the adapter."""
