"""Promote, reject and roll back: every decision about what is in production, checked and then written down.

Each function first repairs what an earlier, killed command left undone, then checks everything that can be checked,
then appends one row to the ledger under the number that it expects, then lets aliases and channel follow. Before the
row nothing has changed; after it the decision stands, and any later command finishes it.
"""

from adapters.device.package import verify_package
from infra.errors import CheckFailed, FactoryError
from registry import decisions
from registry.decisions import BASE, Action, Decision, Row
from registry.projection import Registry, repair
from registry.versions import ReleaseVersion, Version


def promote(registry: Registry, feature: str, number: int, *, actor: str, reason: str, force: bool = False) -> Row:
    """Put a version in production for its base release, if its gates passed; with `force` and a reason, even if not.

    Promoting what is in production on the same evidence changes nothing.

    Raises:
        CheckFailed: gates failed, or somebody else decided about this feature at the same time.
        FactoryError: no such version, a damaged package, an unknown base release, no reason.
    """
    rows = _begin(registry, feature, reason)
    version = registry.catalog.version(feature, number)
    _require_sound(registry, version)
    failed = _failed_gates(registry, version)
    if failed and not force:
        raise CheckFailed(
            f"{feature} {number} failed {', '.join(failed)}; see `factory registry show {feature} {number}`, "
            "or overrule with --force and a reason"
        )
    serving = decisions.production(rows, version.base_release)
    judged = number, version.lineage.evaluation_key, version.evidence
    if serving and (serving.version, serving.evaluation_key, serving.evidence) == judged:
        return serving
    replaced = serving.version if serving and serving.version != number else None
    decision = _about(version, "promote", actor, reason, replaced=replaced, overruled=tuple(failed))
    return _decide(registry, decision, rows)


def reject(registry: Registry, feature: str, number: int, *, actor: str, reason: str) -> Row:
    """Record that a version failed its gates, so that the same keys are not built or tested again.

    Raises:
        FactoryError: no such version, or its gates passed.
    """
    rows = _begin(registry, feature, reason)
    version = registry.catalog.version(feature, number)
    known = decisions.rejection(rows, version.lineage.key, version.lineage.evaluation_key)
    if known:
        return known
    if not _failed_gates(registry, version):
        raise FactoryError(f"{feature} {number} passed its gates; promote it, or change the gates in its recipe")
    return _decide(registry, _about(version, "reject", actor, reason), rows)


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
    release = base_release or _current_release(registry)
    serving = decisions.production(rows, release)
    if serving is None:
        raise FactoryError(f"{feature} has nothing in production for base release {release[:12]}")
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
    _require_sound(registry, version)
    decision = _about(version, "roll back", actor, reason, replaced=serving.version)
    return _decide(registry, decision, rows)


def release_hold(registry: Registry, feature: str, *, actor: str, reason: str) -> list[Row]:
    """Let the versions that rollbacks took out for the current base release be promoted again.

    Raises:
        FactoryError: nothing is held.
    """
    rows = _begin(registry, feature, reason)
    held = decisions.holds(rows, _current_release(registry))
    if not held:
        raise FactoryError(f"{feature}: no version is held; see `factory plan`")
    released: list[Row] = []
    for number in held:
        about = next(row for row in reversed(rows) if row.version == number)
        decision = Decision(
            feature=feature,
            base_release=about.base_release,
            action="release hold",
            version=number,
            lineage=about.lineage,
            evaluation_key=about.evaluation_key,
            package=about.package,
            actor=actor,
            reason=reason,
        )
        released.append(_decide(registry, decision, [*rows, *released]))
    return released


def promote_release(registry: Registry, key: str, *, actor: str, reason: str, force: bool = False) -> Row:
    """Make a registered base release the current one. Features whose versions are for others become stale by that.

    Raises:
        CheckFailed: its gates failed, or somebody else decided at the same time.
        FactoryError: it is not registered, or is damaged, or there is no reason.
    """
    rows = _begin(registry, BASE, reason)
    release = registry.catalog.release(key)
    registry.catalog.release_folder(release)
    failed = _failed_gates(registry, release)
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
    decision = _about(release, "promote", actor, reason, replaced=replaced, overruled=tuple(failed))
    return _decide(registry, decision, rows)


def reject_release(registry: Registry, key: str, *, actor: str, reason: str) -> Row:
    """Record that a base release failed its gates, so that it is not made again; the current one stays.

    Raises:
        FactoryError: it is not registered, or its gates passed.
    """
    rows = _begin(registry, BASE, reason)
    release = registry.catalog.release(key)
    for row in rows:
        if (row.action, row.base_release, row.evidence) == ("reject", key, release.evidence):
            return row
    if not _failed_gates(registry, release):
        raise FactoryError(f"base release {key[:12]} passed its gates; promote it, or change the gates in its recipe")
    return _decide(registry, _about(release, "reject", actor, reason), rows)


def _begin(registry: Registry, feature: str, reason: str) -> list[Row]:
    """Finish what was left undone and return the feature's rows, on which the decision is then based."""
    if not reason.strip():
        raise FactoryError("a decision needs a reason; say why with --reason")
    repair(registry)
    return registry.ledger.rows(feature)


def _decide(registry: Registry, decision: Decision, rows: list[Row]) -> Row:
    row = registry.ledger.append(decision, expected_number=rows[-1].number if rows else 0)
    repair(registry)
    return row


def _current_release(registry: Registry) -> str:
    current = registry.ledger.current_release()
    if current is None:
        raise FactoryError("no base release is current; `factory base release` makes one")
    return current.base_release


def _require_sound(registry: Registry, version: Version) -> None:
    """The package is whole, is for the feature and base release that the catalog says, and that release was shipped."""
    metadata = verify_package(registry.catalog.package_folder(version))
    release = registry.catalog.release(version.base_release, metadata.base_release_digest)
    if (metadata.feature, metadata.lineage) != (version.feature, version.lineage.build):
        raise FactoryError(f"{version.feature} {version.version}: package and registration disagree; run again")
    if not any(row.base_release == release.key for row in registry.ledger.rows(BASE)):
        raise FactoryError(f"base release {release.key[:12]} was never promoted; `factory base release` does it")


def _failed_gates(registry: Registry, version: Version | ReleaseVersion) -> list[str]:
    """Names of the gates that said no; a report that checked nothing has failed as a whole."""
    report = registry.catalog.gate_report(version)
    return [] if report.passed else [gate.name for gate in report.failed] or ["no gate was checked"]


def _about(
    version: Version | ReleaseVersion,
    action: Action,
    actor: str,
    reason: str,
    replaced: int | None = None,
    overruled: tuple[str, ...] = (),
) -> Decision:
    if isinstance(version, Version):
        subject, release, keys = version.feature, version.base_release, version.lineage.build
        evaluation_key, package = version.lineage.evaluation_key, version.package
    else:
        subject, release, keys = BASE, version.key, version.lineage
        evaluation_key, package = None, version.digest
    return Decision(
        feature=subject,
        base_release=release,
        action=action,
        version=version.version,
        lineage=keys,
        evaluation_key=evaluation_key,
        package=package,
        replaced=replaced,
        actor=actor,
        reason=reason,
        evidence=version.evidence,
        overruled=overruled,
    )
