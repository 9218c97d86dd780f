"""Reconciliation, all the while: one replica follows the log and tells what does not add up."""
