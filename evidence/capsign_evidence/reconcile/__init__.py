"""The adapter's entries and the agents' batches, held against each other: pure, streaming, in
bounded memory. The rules are in docs/decisions/0059-silence-late-and-lies.md.
"""
