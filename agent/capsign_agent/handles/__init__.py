"""The capability handles by socket: what each allows, how it stays good."""
