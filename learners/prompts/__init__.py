"""Prompt optimisation: templates improved from textual critiques, as deterministic programs over recorded results."""
