"""Who the agent is: three sources of its certificate behind one contract,
`source.IdentitySource`.
"""
