"""Audit records: written to disk before the agent answers, then delivered to the adapter."""
