"""From a root in the token to a signature: expansion, subkeys, their cache and their
attestation.
"""
