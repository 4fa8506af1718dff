"""Benchmarks: what the product costs and how fast it is, each figure beside the goal that it has."""
