"""Identities: who a workload is, and the authority that says so."""
