"""Key versions from their making to their destruction: in the token and in the store, as one."""
