"""Staged rollouts: a version goes to a share of the devices beside what is in production, then to more, or back.

A step is a ledger row `rollout` with the share. The last step, to all devices, is a promotion like any other; a halt is
a rollback to what is in production, so what was rolled out is held until `release-hold`. Which devices are among the
share they decide themselves (`adapters/device/channel_layout.py`).
"""

from infra.errors import FactoryError
from registry import decisions, promotion
from registry.checks import elsewhere, refuse, release_named, require_sound
from registry.decisions import Decision, Row, Served
from registry.projection import Registry, follow, repair
from registry.promotion import Proposal


def propose(
    registry: Registry,
    feature: str,
    number: int,
    share: float,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    approval_days: float | None = None,
) -> Proposal:
    """Check the start of a rollout as `start` does, and change nothing.

    Raises:
        CheckFailed: as `registry.promotion.propose`.
        FactoryError: nothing is in production for its base release, or the version is; another one is rolled out.
    """
    _require_part(share)
    proposal = promotion.propose(
        registry,
        feature,
        number,
        actor=actor,
        reason=reason,
        force=force,
        approval_days=approval_days,
        share=share,
    )
    if proposal.stands and proposal.stands.action != "request":
        raise FactoryError(f"{feature} {number} is in production already; there is nothing to roll out")
    return proposal


def start(
    registry: Registry,
    feature: str,
    number: int,
    share: float,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    approval_days: float | None = None,
) -> Row:
    """Give a version to a share of the devices (above 0, below 1), after the checks of a promotion.

    With `approval_days` the row that comes back is a `request` with the share, which `registry.promotion.approve` turns
    into the rollout; its steps then need nobody else.

    Raises:
        CheckFailed: as `propose`, or somebody else decided about this feature at the same time.
        FactoryError: as `propose`.
    """
    repair(registry)
    proposal = propose(
        registry, feature, number, share, actor=actor, reason=reason, force=force, approval_days=approval_days
    )
    return promotion.carry_out(registry, proposal)


def step(
    registry: Registry, feature: str, share: float, *, actor: str, reason: str, base_release: str | None = None
) -> Row:
    """Give what is being rolled out to another share of the devices; with 1 it is promoted, and the rollout over.

    It is for the current base release unless `base_release` (a key) names another.

    Raises:
        CheckFailed: as `registry.promotion.promote`, for the last step; a forced rollout overrules there what it named.
        FactoryError: nothing is being rolled out for the base release, or its package is damaged.
    """
    rows, present = _under_way(registry, feature, base_release)
    assert present.rollout is not None
    staged = present.rollout
    if share == 1:
        return _finish(registry, staged, actor, reason)
    _require_part(share)
    require_sound(registry, registry.catalog.version(feature, staged.version))
    return _decide(registry, _again(staged, action="rollout", share=share, actor=actor, reason=reason), rows)


def halt(registry: Registry, feature: str, *, actor: str, reason: str, base_release: str | None = None) -> Row:
    """Give all devices what is in production, and hold what was being rolled out; for a base release as `step`.

    Raises:
        FactoryError: nothing is being rolled out for the base release.
    """
    rows, present = _under_way(registry, feature, base_release)
    assert present.rollout is not None
    back = {"action": "roll back", "replaced": present.rollout.version, "share": None, "actor": actor, "reason": reason}
    return _decide(registry, _again(present.production, **back), rows)


def _under_way(registry: Registry, feature: str, base_release: str | None) -> tuple[list[Row], Served]:
    repair(registry)
    rows, release = registry.ledger.rows(feature), base_release or release_named(registry.ledger, None)
    present = decisions.served_for(rows, release)
    if present is None or present.rollout is None:
        others = [one.base_release for one in decisions.rollouts(rows)]
        raise FactoryError(
            f"{feature}: nothing is being rolled out for base release {release[:12]}{elsewhere(others, 'one runs')}; "
            f"`factory promote {feature} VERSION --rollout 5%` starts it"
        )
    return rows, present


def _finish(registry: Registry, staged: Row, actor: str, reason: str) -> Row:
    """Promote what is rolled out; what its start overruled stays overruled, and nothing else."""
    feature, number = staged.feature, staged.version
    forced = bool(staged.overruled)
    proposal = promotion.propose(registry, feature, number, actor=actor, reason=reason, force=forced)
    found = proposal.decision.overruled if proposal.decision else ()
    if new := [one for one in found if one not in staged.overruled]:
        raise refuse(registry.catalog.version(feature, number), proposal.rows, new)
    return promotion.carry_out(registry, proposal)


def _again(row: Row, **changes: object) -> Decision:
    """Another decision about the version of a row."""
    return Decision.model_validate({name: getattr(row, name) for name in Decision.model_fields} | changes)


def _decide(registry: Registry, decision: Decision, rows: list[Row]) -> Row:
    row = registry.ledger.append(decision, expected_number=rows[-1].number if rows else 0)
    follow(registry, row)
    return row


def _require_part(share: float) -> None:
    if not 0 < share < 1:
        raise FactoryError(f"a rollout begins with a part of the devices, above 0% and below 100%, not {share:.0%}")
