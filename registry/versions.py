"""A registered version as the catalog knows it, and the tags that carry it on an MLflow model version.

One tag is written with the version and one, the verdict, is replaced whole when the version is tested again, so no kill
leaves half of either. The other tags repeat single values of them, to search and read by.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from adapters.evaluation.gates import GateReport
from adapters.lineage import Lineage
from infra.canonical import canonical_json, digest
from infra.errors import FactoryError


@dataclass(frozen=True)
class Version:
    """One built and tested adapter.

    `lineage` holds the keys that it was built from and last judged by; `package` is the digest of what ships; `passed`
    and `evidence` are the verdict and digest of its last gate report, which lies in the MLflow run `run_id` beside the
    figures; `champion` is the package that it was then tested against, None if nothing was in production; `created` is
    UTC, ISO 8601.
    """

    feature: str
    version: int
    lineage: Lineage
    package: str
    passed: bool
    evidence: str
    run_id: str
    created: str
    champion: str | None = None

    @property
    def base_release(self) -> str:
        """Key of the base release that the adapter runs on."""
        return self.lineage.build["base_release"]


@dataclass(frozen=True)
class ReleaseVersion:
    """One base release: the keys that it was made from, the digest of its folder, and its verdict as in `Version`."""

    version: int
    lineage: dict[str, str]
    digest: str
    passed: bool
    evidence: str
    run_id: str
    created: str

    @property
    def key(self) -> str:
        """The key of the release, as in a feature's lineage."""
        return digest(self.lineage)


def adapter_tags(lineage: Lineage, package: str) -> dict[str, str]:
    """Tags of an adapter's model version that never change."""
    return {
        "lineage": canonical_json(lineage.build).decode(),
        "lineage_key": lineage.key,
        "base_release": lineage.build["base_release"],
        "package": package,
    }


def release_tags(lineage: Mapping[str, str], content: str) -> dict[str, str]:
    """Tags of a base release's model version that never change; `content` is the digest of its folder."""
    return {
        "lineage": canonical_json(dict(lineage)).decode(),
        "base_release": digest(dict(lineage)),
        "digest": content,
    }


def verdict_tags(
    report: GateReport, run_id: str, lineage: Lineage | None = None, champion: str | None = None
) -> dict[str, str]:
    """Tags that another evaluation replaces, the one that is read first; `lineage` and `champion` for an adapter."""
    verdict: dict[str, object] = {"passed": report.passed, "evidence": report.digest, "run_id": run_id}
    tags = {"gates": "passed" if report.passed else "failed"}
    if lineage is not None:
        verdict |= {"evaluation": lineage.evaluation, "champion": champion}
        tags["evaluation_key"] = lineage.evaluation_key
    return {"verdict": canonical_json(verdict).decode()} | tags


def version_from_tags(feature: str, version: int, tags: Mapping[str, str], created: str) -> Version:
    """Read an adapter's tags.

    Raises:
        FactoryError: tags are missing, or were changed so that they contradict each other.
    """
    try:
        verdict = json.loads(tags["verdict"])
        lineage = Lineage(json.loads(tags["lineage"]), verdict["evaluation"])
        if (tags["lineage_key"], tags["base_release"]) != (lineage.key, lineage.build["base_release"]):
            raise ValueError("lineage and its key disagree")
        return Version(
            feature=feature,
            version=version,
            lineage=lineage,
            package=tags["package"],
            passed=verdict["passed"] is True,
            evidence=verdict["evidence"],
            run_id=verdict["run_id"],
            created=created,
            champion=verdict.get("champion"),  # missing in versions from before it was recorded
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _changed(f"version {version} of {feature}", error) from None


def release_from_tags(version: int, tags: Mapping[str, str], created: str) -> ReleaseVersion:
    """Read a base release's tags.

    Raises:
        FactoryError: tags are missing, or were changed so that they contradict each other.
    """
    try:
        verdict = json.loads(tags["verdict"])
        release = ReleaseVersion(
            version=version,
            lineage=json.loads(tags["lineage"]),
            digest=tags["digest"],
            passed=verdict["passed"] is True,
            evidence=verdict["evidence"],
            run_id=verdict["run_id"],
            created=created,
        )
        if release.key != tags["base_release"]:
            raise ValueError("lineage and its key disagree")
        return release
    except (KeyError, ValueError, TypeError) as error:
        raise _changed(f"version {version} of base-release", error) from None


def _changed(what: str, error: Exception) -> FactoryError:
    return FactoryError(
        f"{what} in MLflow: tags missing or changed ({error}); "
        "set them back, or delete that model version and run again"
    )
