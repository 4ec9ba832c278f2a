"""Attacks on our own trainings: what a release really tells, beside what was promised."""
