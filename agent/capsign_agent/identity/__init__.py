"""The agent's identity: three sources of its certificate behind one contract,
`source.IdentitySource`.
"""
