"""The trust bundle that pods are given, and whether an adapter confirms it."""
