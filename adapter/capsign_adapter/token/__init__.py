"""The HSM behind one contract and one thread."""
