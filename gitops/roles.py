"""Who may do what: roles of people, and what each may."""

from __future__ import annotations

from typing import Final, Literal, get_args

Permission = Literal["read", "push", "order", "allocate", "administer"]
"""``read``: see everything; ``push``: artifacts; ``order``: about rollouts; ``allocate``: cluster tokens, revocation,
and approval of a blast radius; ``administer``: people's tokens and the audit log."""

Role = Literal["viewer", "engineer", "operator", "resource-allocator", "administrator"]

ROLES: Final[dict[Role, frozenset[Permission]]] = {
    "viewer": frozenset({"read"}),
    "engineer": frozenset({"read", "push"}),
    "operator": frozenset({"read", "order"}),
    "resource-allocator": frozenset({"read", "allocate"}),
    "administrator": frozenset(get_args(Permission)),
}
