"""Kubernetes objects as literals: what the cluster should contain for one custom resource."""
