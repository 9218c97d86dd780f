"""Decides whether a pod may have an agent, and what to warn of. Pure."""
