"""HTTPS around the pure review: listeners, connections, bounds, health and metrics."""
