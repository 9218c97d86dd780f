"""The trust bundle for pods, and whether an adapter confirms it."""
