"""The compiled peer in the same cells, on the same machine: `python -m bench.peer`."""
