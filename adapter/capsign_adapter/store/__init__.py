"""The store: ledger, evidence log and control state behind one set of interfaces, written in one
transaction.
"""
