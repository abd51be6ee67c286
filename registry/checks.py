"""What is checked before a decision is written: the package is sound, its gates passed against today's production."""

from collections.abc import Sequence

from adapters.device.package import verify_package
from infra.errors import CheckFailed, FactoryError
from registry import decisions
from registry.decisions import BASE, MOVES, Row
from registry.ledger import Ledger
from registry.projection import Registry
from registry.versions import ReleaseVersion, Version

# What a forced promotion overrules, besides gates, if the version was tested against what is no longer in production.
TESTED_AGAINST_PRODUCTION = "tested_against_production"
# How many digits of a key name a base release.
_SHORTEST_KEY = 6


def release_named(ledger: Ledger, name: str | None) -> str:
    """The key of the base release that somebody named by its version, or by the beginning of its key; the current one.

    Raises:
        FactoryError: none, or more than one, was ever current that is named so.
    """
    rows = [row for row in ledger.rows(BASE) if row.action in MOVES]
    if not rows:
        raise FactoryError("no base release is current; `factory base release` makes one")
    if name is None:
        return rows[-1].base_release
    versions = {row.base_release: row.version for row in rows}
    is_key = len(name) >= _SHORTEST_KEY
    named = [key for key, version in versions.items() if name == str(version) or (is_key and key.startswith(name))]
    if len(named) != 1:
        known = ", ".join(f"{version} ({key[:12]})" for key, version in versions.items())
        raise FactoryError(f"no base release {name!r}; there are {known}")
    return named[0]


def elsewhere(releases: Sequence[str], what: str = "something is") -> str:
    """The end of an error about one base release if there is what was asked for over others."""
    named = ", ".join(key[:12] for key in releases)
    return f"; {what} for {named}: name it with --base-release" if releases else ""


def require_sound(registry: Registry, version: Version) -> None:
    """The package is whole, is for the feature and base release that the catalog says, and that release was shipped.

    Raises:
        FactoryError: one of these is not so.
    """
    metadata = verify_package(registry.catalog.package_folder(version))
    release = registry.catalog.release(version.base_release, metadata.base_release_digest)
    if (metadata.feature, metadata.lineage) != (version.feature, version.lineage.build):
        raise FactoryError(f"{version.feature} {version.version}: package and registration disagree; run again")
    if not any(row.base_release == release.key for row in registry.ledger.rows(BASE)):
        raise FactoryError(f"base release {release.key[:12]} was never promoted; `factory base release` does it")


def require_room(version: Version, rows: Sequence[Row]) -> None:
    """A version can go to a share of the devices: another one is in production, and no third is being rolled out.

    Raises:
        FactoryError: it cannot.
    """
    name, number = version.feature, version.version
    present = decisions.served_for(rows, version.base_release)
    if present is None or present.production.version == number:
        raise FactoryError(
            f"{name} {number}: nothing else is in production for base release {version.base_release[:12]}; "
            "promote it without --rollout"
        )
    if present.rollout is not None and present.rollout.version != number:
        raise FactoryError(
            f"{name} {present.rollout.version} is being rolled out; finish it (`factory rollout {name} 100%`) or "
            "halt it"
        )


def failed_gates(registry: Registry, version: Version | ReleaseVersion) -> list[str]:
    """Names of the gates that said no; a report that checked nothing has failed as a whole."""
    report = registry.catalog.gate_report(version)
    return [] if report.passed else [gate.name for gate in report.failed] or ["no gate was checked"]


def objections(registry: Registry, version: Version, rows: Sequence[Row]) -> list[str]:
    """What speaks against a promotion: failed gates, and a verdict that was reached against another champion.

    `rows` are the feature's. What is in production already needs no comparison with itself.
    """
    champion = decisions.champion(rows, version.base_release, version.version)
    outdated = champion is not None and champion.package != version.champion
    return failed_gates(registry, version) + ([TESTED_AGAINST_PRODUCTION] if outdated else [])


def refuse(version: Version, rows: Sequence[Row], found: Sequence[str]) -> CheckFailed:
    """The error for objections, with what to do about them."""
    name, number = version.feature, version.version
    if gates := [one for one in found if one != TESTED_AGAINST_PRODUCTION]:
        return CheckFailed(
            f"{name} {number} failed {', '.join(gates)}; see `factory registry show {name} {number}`, or overrule with "
            "--force and a reason"
        )
    champion = decisions.champion(rows, version.base_release, number)
    assert champion is not None
    former = next((row.version for row in rows if row.package == version.champion), None)
    against = f"version {former}" if former else "no version in production"
    return CheckFailed(
        f"{name} {number} was tested against {against}, but version {champion.version} is in production since "
        f"{champion.time[:19]}; `factory run {name}` tests it again if it is what today's inputs give (`factory plan "
        f"{name}`: needs evaluation), else overrule with --force and a reason"
    )
