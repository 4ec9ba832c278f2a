"""How sums are made private."""
