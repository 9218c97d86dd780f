"""Constructs the parts of a replica, in the order in which a call passes through them."""
