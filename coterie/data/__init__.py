"""Interaction logs: reading, cleaning, splitting, clients, catalogues, a synthetic market."""
