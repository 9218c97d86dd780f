"""Capability handles, by socket: what each allows and how it is kept valid."""
