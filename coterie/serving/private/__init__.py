"""Answers that say little about who asks: drawn with noise, or computed in the browser from an exported model."""
