"""Approvals: a promotion that a recipe wants a second person for is a request, which somebody else approves in time.

Pure functions over ledger rows. A request is open until it is approved, until it expires, or until any other decision
about its version (a promotion, a rejection, another request) takes its place.
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


def expiry(request: Row, days: float) -> datetime:
    """Until when a request can be approved."""
    return datetime.fromisoformat(request.time) + timedelta(days=days)
