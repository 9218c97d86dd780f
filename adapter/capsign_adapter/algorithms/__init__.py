"""What each algorithm does here: one table, and what stands behind its rows. Pure."""
