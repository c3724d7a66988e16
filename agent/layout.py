"""Where an agent's things stand below its state directory. Names only."""

from __future__ import annotations

from typing import Final

CONFIG: Final = "agent.json"
"""Settings; written last by a join, so that its presence says that the join is complete."""

KEY: Final = "key"
"""The agent's private key, OpenSSH form, 0600."""

CREDENTIAL: Final = "credential"
"""``USER:PASSWORD`` for the Git host of a fleet without a hub, 0600."""

CLIENT_CERTIFICATE: Final = "client.pem"
CLIENT_KEY: Final = "client.key"
"""Certificate and key of mutual TLS: what the hub's authority gave at the join, or a person put there."""

HUB_AUTHORITY: Final = "hub-ca.pem"
"""The hub's own certificate authority, pinned at the join; absent where the system's authorities vouch for the hub."""

REGISTRIES: Final = "registries.json"
"""Logins of registries, in the form of a docker ``config.json``, 0600; absent for none."""

TRUST: Final = "trust"
"""``trust/<n>.json`` and ``trust/<n>.json.sig``, from the pinned one up to the one in force."""

FLEET_GIT: Final = "fleet.git"
"""What was fetched of a fleet repository; a cache."""

CONTENT: Final = "content"
"""Artifacts by digest: agent/content.py."""

OVERLAY: Final = "overlay"
"""Accepted overlays."""

DATABASE: Final = "state.sqlite"
"""Journal, events, and what was accepted last."""

HOST: Final = "host"
"""Records of the host platform."""
