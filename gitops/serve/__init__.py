"""The hub's HTTP service: overlays, reports, registration, Git, artifacts, hooks, status."""
