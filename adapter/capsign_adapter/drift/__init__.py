"""Drift: what is, as a replica can see it, held against what should be, again and again."""
