"""Pure decisions: policy, handles, contexts, admission and budgets. No I/O; time is an
argument.
"""
