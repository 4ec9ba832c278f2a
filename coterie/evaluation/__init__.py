"""Ranking metrics, intervals, significance."""
