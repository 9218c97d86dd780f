"""What one caller's attack leaves the others: `python -m bench.fairness`."""
