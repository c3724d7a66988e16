"""Placement policy: which clusters, which version, and why. Pure: no I/O, no clock."""
