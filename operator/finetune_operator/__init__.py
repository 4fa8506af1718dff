"""Kubernetes operator that turns human ratings into a provably better model in production."""

__version__ = "0.1.0"
