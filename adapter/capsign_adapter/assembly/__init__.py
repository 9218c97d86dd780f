"""How the parts of a replica are put together, in the order in which a call passes through them."""
