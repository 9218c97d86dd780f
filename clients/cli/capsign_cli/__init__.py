"""The command line `capsign`: drives agents and adapters, and contains neither."""
