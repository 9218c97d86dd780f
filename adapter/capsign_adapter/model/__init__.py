"""What the adapter keeps and decides about: intents, key versions, authorities, revocations,
batches of agents, and the moves between their states. Pure values; rooms above pass them on.
"""
