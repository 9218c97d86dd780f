"""The signing path as numbered steps, and the questions beside it."""
