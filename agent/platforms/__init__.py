"""Executors of one plan, and what they observe: a Kubernetes cluster, or a bare host."""
