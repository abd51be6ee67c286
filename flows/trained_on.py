"""Which versions were trained on a record: each registered version keeps the ids that it was trained on."""

import json

from flows.factory import Factory
from flows.job import TRAINED_ON


def versions_trained_on(factory: Factory, feature: str, ids: list[str]) -> dict[str, list[int]]:
    """For each record id, the numbers of the feature's versions that were trained on it."""
    versions = factory.catalog.versions(feature)
    known = {
        version.version: set(json.loads(factory.catalog.run_file(version.run_id, TRAINED_ON).read_text("utf-8")))
        for version in versions
    }
    return {one: [number for number, trained in known.items() if one in trained] for one in ids}
