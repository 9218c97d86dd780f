"""Reads a pod and what it asks for, typed and bounded. Pure."""
