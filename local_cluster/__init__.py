"""A single-node Kubernetes for a machine without a Docker engine, built from source; the standard library only."""
