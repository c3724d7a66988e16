"""What the next cycle would do, without doing it: the same stages, nothing written."""

from __future__ import annotations

from agent import force
from agent.clock import Instant
from agent.fetch import Received
from agent.force import Force, check, own_files
from agent.journal import after_boot
from agent.observe import observe
from agent.plan import plan
from agent.reconcile import Site, situation
from agent.signed_models import signature_fault
from agent.steps import Plan
from agent.verify import Accepted


def preview(site: Site, received: Received | None, instant: Instant) -> Plan:
    """Return the plan of the next cycle. The site is not to be used for cycles after this.

    Args:
        site: opened, never cycled; its database may be open for reading only.
        received: the newest overlay, not yet trusted; None for that which is in force.
        instant: now.

    Raises:
        Stop: the overlay would be refused.
        Retry, Wait: the platform cannot look now.
    """
    site.book.states = {key: after_boot(state, instant) for key, state in site.book.states.items()}
    if received is not None:
        least = force.least_sequence(site.state, site.config)
        taken = check(received, site.force, site.config, site.key, site.root, least)
        if isinstance(taken, Accepted):
            _foresee(site, taken)
    observed = observe(site.platform, site.book.states.values(), site.staging.staged, only_look=True)
    return plan(situation(site, observed, instant))


def _foresee(site: Site, taken: Accepted) -> None:
    site.force = Force(taken.trust, taken.release)
    for entry in taken.release.entries:
        site.entries[entry.digest] = entry
        site.refused[entry.digest] = site.platform.refuses(entry)
        untrusted = signature_fault(entry, own_files(taken, entry), taken.trust)
        if untrusted is not None:
            site.untrusted[entry.digest] = untrusted
        if not site.refused[entry.digest]:
            site.staging.look(entry, own_files(taken, entry))
