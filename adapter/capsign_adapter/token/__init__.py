"""The HSM: one interface, and the single thread that calls its module."""
