"""How each algorithm runs in this process: one table, and the functions of its rows. Pure."""
