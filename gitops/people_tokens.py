"""Tokens of people: made once, shown once, kept as hashes."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from gitops.store import PersonToken


def new_person(person: str, role: str, ttl_s: int, now: datetime) -> tuple[str, PersonToken]:
    """Return a fresh token, and what is kept of it."""
    secret = secrets.token_urlsafe(32)
    ends = now + timedelta(seconds=ttl_s)
    return secret, PersonToken(hashlib.sha256(secret.encode()).digest(), secrets.token_hex(6), person, role, now, ends)
