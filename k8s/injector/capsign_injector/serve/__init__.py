"""HTTPS for the review: listeners, connections, bounds, health and metrics."""
