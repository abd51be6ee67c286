"""Promote, accept, reject, approve and roll back: every decision about production, checked and then written down.

Each function first repairs what an earlier, killed command left undone, then checks everything that can be checked,
then appends to the ledger under the number that it expects, then lets aliases and channel follow. Before the row
nothing has changed; after it the decision stands, and any later command finishes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import CheckFailed, FactoryError
from registry import decisions
from registry.approvals import agreement, expiry, open_request
from registry.checks import (
    elsewhere,
    failed_gates,
    objections,
    refuse,
    release_named,
    require_room,
    require_sound,
)
from registry.decisions import BASE, Action, Decision, Row
from registry.ledger import LedgerConflict
from registry.projection import Registry, follow, repair
from registry.versions import ReleaseVersion, Version

_LONGEST_REASON = 2000


@dataclass(frozen=True)
class Proposal:
    """What a promotion would write after every check: `decision`, or nothing because of the row that `stands`.

    `rows` are the feature's decisions that it is based on.
    """

    rows: list[Row]
    decision: Decision | None = None
    stands: Row | None = None


def propose(
    registry: Registry,
    feature: str,
    number: int,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    approval_days: float | None = None,
    share: float | None = None,
) -> Proposal:
    """Check a promotion as `promote` does, or one to a `share` of the devices, and change nothing.

    Raises:
        CheckFailed: gates failed, or were passed against what is no longer in production.
        FactoryError: no such version, a damaged package, an unknown base release, no reason.
    """
    _require_reason(reason)
    rows = registry.ledger.rows(feature)
    version = registry.catalog.version(feature, number)
    require_sound(registry, version)
    found = objections(registry, version, rows)
    agreed = agreement(rows, number, version.evidence)
    if new := [one for one in found if agreed is None or one not in agreed.overruled]:
        if not force:
            raise refuse(version, rows, new)
        agreed = None  # nobody approved of overruling these
    serving = decisions.production(rows, version.base_release)
    if serving and _same_verdict(serving, version):
        return Proposal(rows, stands=serving)
    share = agreed.share if agreed else share
    if share is not None:
        require_room(version, rows)
    action: Action = "promote" if share is None else "rollout"
    if approval_days is not None and agreed is None and not (serving and serving.version == number):
        action = "request"
        waiting = open_request(rows, number, approval_days)
        asked = waiting is not None and waiting.share == share and _same_verdict(waiting, version)
        if waiting and asked and set(found) <= set(waiting.overruled):
            return Proposal(rows, stands=waiting)
    if agreed:
        reason = f"{agreed.reason}; approved by {agreed.actor} in decision {agreed.number}"[:_LONGEST_REASON]
    replaced = serving.version if serving and serving.version != number and share is None else None
    return Proposal(rows, _about(version, action, actor, reason, replaced, tuple(found), share))


def promote(
    registry: Registry,
    feature: str,
    number: int,
    *,
    actor: str,
    reason: str,
    force: bool = False,
    approval_days: float | None = None,
    seen: int | None = None,
) -> Row:
    """Put a version in production for its base release, if its gates passed; with `force` and a reason, even if not.

    `seen` is the number of the feature's last decision when the run that asks began, as in every decision of a run: a
    run that was overtaken by another decision decides nothing.

    With `approval_days` (how long a request lasts) the row that comes back is a `request`; once it is approved, the
    next call promotes. Promoting what is in production on the same evidence, or asking for it again, changes nothing;
    new evidence for what is in production needs nobody else.

    Raises:
        CheckFailed: as `propose`, or somebody else decided about this feature at the same time, or after `seen`.
        FactoryError: as `propose`.
    """
    repair(registry)
    proposal = propose(registry, feature, number, actor=actor, reason=reason, force=force, approval_days=approval_days)
    return carry_out(registry, proposal, seen)


def carry_out(registry: Registry, proposal: Proposal, seen: int | None = None) -> Row:
    """Write what a proposal says, and let aliases and channel follow; the row that stands if there is nothing to write.

    Raises:
        CheckFailed: somebody else decided about this feature since the proposal was made, or after `seen`.
    """
    if proposal.stands:
        return proposal.stands
    assert proposal.decision is not None
    return _decide(registry, [proposal.decision], proposal.rows, seen)[-1]


def approve(registry: Registry, feature: str, number: int, *, actor: str, reason: str, approval_days: float) -> Row:
    """Agree to a request of somebody else; `promote` by anybody then carries it out, for the share that it names.

    Everything is checked again; a forced request may overrule what it named, and no more.

    Raises:
        CheckFailed: the request is the actor's own, or something new speaks against the version.
        FactoryError: there is no open request, or no reason.
    """
    rows = _begin(registry, feature, reason)
    request = open_request(rows, number, approval_days)
    if request is None:
        raise FactoryError(
            f"{feature} {number}: no request is open (they last {approval_days:g} days); see `factory history "
            f"{feature}`, and ask with `factory promote {feature} {number} --reason …`"
        )
    if request.actor == actor:
        raise CheckFailed(
            f"{feature} {number}: {actor} asked for it (decision {request.number}) and cannot approve it; somebody "
            f"else has to, until {expiry(request, approval_days):%Y-%m-%dT%H:%M} UTC"
        )
    version = registry.catalog.version(feature, number)
    require_sound(registry, version)
    found = objections(registry, version, rows)
    if not set(found) <= set(request.overruled):
        raise refuse(version, rows, [one for one in found if one not in request.overruled])
    if request.share is not None:
        require_room(version, rows)
    asked = f"{request.reason} (asked by {request.actor} in decision {request.number}); {reason}"[:_LONGEST_REASON]
    agreed = _about(version, "approve", actor, asked, request.replaced, tuple(found), request.share)
    return _decide(registry, [agreed], rows)[-1]


def accept(registry: Registry, feature: str, number: int, *, actor: str, reason: str, seen: int | None = None) -> Row:
    """Record that a version passed its gates and waits for a promotion, so that the plan finds it in the ledger.

    Raises:
        CheckFailed: its gates failed, or somebody decided after `seen`.
        FactoryError: no such version.
    """
    rows = _begin(registry, feature, reason)
    version = registry.catalog.version(feature, number)
    known = decisions.verdict(rows, version.lineage.key)
    if known and known.version == number and known.action != "reject" and _same_verdict(known, version):
        return known
    if failed := failed_gates(registry, version):
        raise refuse(version, rows, failed)
    return _decide(registry, [_about(version, "accept", actor, reason)], rows, seen)[-1]


def reject(registry: Registry, feature: str, number: int, *, actor: str, reason: str, seen: int | None = None) -> Row:
    """Record that a version failed its gates, so that the same keys are not built or tested again.

    Raises:
        CheckFailed: somebody decided after `seen`.
        FactoryError: no such version, or its gates passed.
    """
    rows = _begin(registry, feature, reason)
    version = registry.catalog.version(feature, number)
    known = decisions.rejection(rows, version.lineage.key, version.lineage.evaluation_key)
    if known:
        return known
    if not failed_gates(registry, version):
        raise FactoryError(f"{feature} {number} passed its gates; promote it, or change the gates in its recipe")
    return _decide(registry, [_about(version, "reject", actor, reason)], rows, seen)[-1]


def rollback(
    registry: Registry,
    feature: str,
    *,
    actor: str,
    reason: str,
    to: int | None = None,
    base_release: str | None = None,
) -> Row:
    """Put the previous good version back in production and hold the present one; `to` names another earlier version.

    It is for the current base release unless `base_release` (a key) names another.

    Raises:
        CheckFailed: somebody else decided about this feature at the same time.
        FactoryError: there is nothing to go back to, or what there is is damaged.
    """
    rows = _begin(registry, feature, reason)
    release = base_release or release_named(registry.ledger, None)
    serving = decisions.production(rows, release)
    if serving is None:
        has = [one.production.base_release for one in decisions.served(rows)]
        raise FactoryError(f"{feature} has nothing in production for base release {release[:12]}{elsewhere(has)}")
    if to is None:
        good = decisions.good_versions(rows, release)
        if len(good) < 2:
            raise FactoryError(
                f"{feature} {serving.version} is the first good version for base release {release[:12]}: "
                "there is nothing to go back to"
            )
        to = good[-2]
    promotions = [row for row in rows if row.version == to and row.action == "promote" and row.base_release == release]
    if to == serving.version or not promotions:
        was = "is in production already" if to == serving.version else "was never in production"
        raise FactoryError(f"{feature} {to} {was} for base release {release[:12]}; see `factory history {feature}`")
    version = registry.catalog.version(feature, to)
    if version.package != promotions[-1].package:
        raise FactoryError(f"{feature} {to} in MLflow is not the package that was promoted; go back to another version")
    require_sound(registry, version)
    return _decide(
        registry, [_about(version, "roll back", actor, reason, serving.version, promotions[-1].overruled)], rows
    )[-1]


def release_hold(
    registry: Registry, feature: str, *, actor: str, reason: str, base_release: str | None = None
) -> list[Row]:
    """Let the versions that rollbacks took out be promoted again, for the base release that `rollback` takes.

    Raises:
        FactoryError: nothing is held for it.
    """
    rows = _begin(registry, feature, reason)
    release = base_release or release_named(registry.ledger, None)
    held = decisions.holds(rows, release)
    if not held:
        others = [one for one in decisions.releases(rows) if decisions.holds(rows, one)]
        raise FactoryError(
            f"{feature}: no version is held for base release {release[:12]}{elsewhere(others, 'one is held')}; "
            "see `factory plan`"
        )
    released: list[Decision] = []
    for number in held:
        about = next(row for row in reversed(rows) if row.version == number)
        copied = {name: getattr(about, name) for name in Decision.model_fields if name not in ("replaced", "share")}
        released.append(Decision(**copied | {"action": "release hold", "actor": actor, "reason": reason}))
    return _decide(registry, released, rows)


def promote_release(
    registry: Registry, key: str, *, actor: str, reason: str, force: bool = False, seen: int | None = None
) -> Row:
    """Make a registered base release the current one. Features whose versions are for others become stale by that.

    Raises:
        CheckFailed: its gates failed, or somebody else decided at the same time, or after `seen`.
        FactoryError: it is not registered, or is damaged, or there is no reason.
    """
    rows = _begin(registry, BASE, reason)
    release = registry.catalog.release(key)
    registry.catalog.release_folder(release)
    failed = failed_gates(registry, release)
    if failed and not force:
        raise CheckFailed(f"base release {key[:12]} failed {', '.join(failed)}; overrule with --force and a reason")
    current = decisions.last_move(rows)
    if current and (current.base_release, current.version, current.evidence) == (
        key,
        release.version,
        release.evidence,
    ):
        return current
    replaced = current.version if current and current.version != release.version else None
    return _decide(registry, [_about(release, "promote", actor, reason, replaced, tuple(failed))], rows, seen)[-1]


def reject_release(registry: Registry, key: str, *, actor: str, reason: str, seen: int | None = None) -> Row:
    """Record that a base release failed its gates, so that it is not made again; the current one stays.

    Raises:
        CheckFailed: somebody decided after `seen`.
        FactoryError: it is not registered, or its gates passed.
    """
    rows = _begin(registry, BASE, reason)
    release = registry.catalog.release(key)
    for row in rows:
        if (row.action, row.base_release, row.evidence) == ("reject", key, release.evidence):
            return row
    if not failed_gates(registry, release):
        raise FactoryError(f"base release {key[:12]} passed its gates; promote it, or change the gates in its recipe")
    return _decide(registry, [_about(release, "reject", actor, reason)], rows, seen)[-1]


def _begin(registry: Registry, feature: str, reason: str) -> list[Row]:
    """Finish what was left undone and return the feature's rows, on which the decision is then based."""
    _require_reason(reason)
    repair(registry)
    return registry.ledger.rows(feature)


def _require_reason(reason: str) -> None:
    if not reason.strip():
        raise FactoryError("a decision needs a reason; say why with --reason")


def _decide(registry: Registry, made: Sequence[Decision], rows: Sequence[Row], seen: int | None = None) -> list[Row]:
    last = rows[-1] if rows else None
    if seen is not None and last is not None and last.number > seen:
        # A run that was taken for dead and came back, for instance: it knows less than what was decided.
        raise LedgerConflict(
            f"{last.feature}: decision {last.number} ({last.action} version {last.version}, by {last.actor}) was made "
            f"after this run began, which saw {seen}; the next run looks again"
        )
    written = registry.ledger.append_all(made, expected_number=last.number if last else 0)
    follow(registry, written[-1])
    return written


def _same_verdict(row: Row, version: Version) -> bool:
    judged = version.version, version.lineage.evaluation_key, version.evidence
    return (row.version, row.evaluation_key, row.evidence) == judged


def _about(
    version: Version | ReleaseVersion,
    action: Action,
    actor: str,
    reason: str,
    replaced: int | None = None,
    overruled: tuple[str, ...] = (),
    share: float | None = None,
) -> Decision:
    keys: dict[str, Any]
    if isinstance(version, Version):
        keys = {
            "feature": version.feature,
            "base_release": version.base_release,
            "lineage": version.lineage.build,
            "evaluation": version.lineage.evaluation,
            "evaluation_key": version.lineage.evaluation_key,
            "package": version.package,
            "champion": version.champion,
        }
    else:
        keys = {
            "feature": BASE,
            "base_release": version.key,
            "lineage": version.lineage,
            "package": version.digest,
        }
    return Decision(
        **keys,
        action=action,
        version=version.version,
        replaced=replaced,
        actor=actor,
        reason=reason,
        evidence=version.evidence,
        overruled=overruled,
        share=share,
    )
