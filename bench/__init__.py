"""Benchmarks: `python -m bench NAME`; what they gave stands in docs/benchmarks.md."""
