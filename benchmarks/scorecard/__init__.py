"""The rows of the scorecard that `benchmarks/reliability.py` measures."""
