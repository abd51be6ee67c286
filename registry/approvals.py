"""Approvals: a promotion that a recipe wants a second person for is a request, which somebody else approves in time.

Pure functions over ledger rows. A request is open until it is approved, until it expires, or until any other decision
about its version (a promotion, a rejection, another request) takes its place. An approval stands until its promotion,
which whoever runs the factory carries out: who approves needs no keys.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from registry.decisions import Row


def open_request(rows: Sequence[Row], version: int, days: float) -> Row | None:
    """The request to promote a version that waits for approval now, or None.

    `rows` are the feature's; `days` is how long its requests last.
    """
    about = [row for row in rows if row.version == version]
    if not about or about[-1].action != "request":
        return None
    return about[-1] if datetime.now(UTC) < expiry(about[-1], days) else None


def agreement(rows: Sequence[Row], version: int, evidence: str) -> Row | None:
    """The approval of a version that was not carried out yet, for the verdict that it was given for; or None."""
    about = [row for row in rows if row.version == version]
    agreed = bool(about) and (about[-1].action, about[-1].evidence) == ("approve", evidence)
    return about[-1] if agreed else None


def expiry(request: Row, days: float) -> datetime:
    """Until when a request can be approved."""
    return datetime.fromisoformat(request.time) + timedelta(days=days)
