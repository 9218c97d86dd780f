"""The ledger, the evidence log and the control state, behind one contract and in one
transaction.
"""
