"""Train, compare, evaluate: where the pieces meet."""
