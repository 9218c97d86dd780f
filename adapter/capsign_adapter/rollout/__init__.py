"""Rollouts: what people ask of them, and what they do by themselves."""
