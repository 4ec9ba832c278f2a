"""Compiled kernels of the models."""
