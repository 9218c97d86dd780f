"""Pure decisions: policy, handles, contexts, admission and lifecycles. No I/O; time is an
argument.
"""
