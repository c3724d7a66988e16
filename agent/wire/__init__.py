"""The formats that hub and agent exchange. The agent owns them: it is the slowest to upgrade."""
