"""What in the workspace nobody needs any more: outputs in the store, what kills left there, answers nobody asks for.

All of it can be made again, and what is registered, decided or published lies elsewhere: in MLflow's artifacts, the
ledger and the channel, which are not touched. Kept are the stages of today's base release and features, those of every
version in production, and whatever is younger than the grace period.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from adapters.palettization.stages import exploration_stages, release_stages
from flows.factory import Factory
from infra.store import Entry


def unreachable(factory: Factory, grace: timedelta) -> list[Entry]:
    """Store entries older than `grace` that no current or production lineage leads to."""
    keys = set(_release_keys(factory))
    lineages = list(_lineages(factory))
    latest = time.time() - grace.total_seconds()
    return [
        entry
        for entry in factory.workspace.store.entries()
        if entry.created < latest and entry.key not in keys and not _belongs(entry.inputs, lineages)
    ]


def leftovers(factory: Factory, grace: timedelta) -> list[Path]:
    """Folders that nothing was written to for `grace`: half-made or damaged outputs, scratch, half-fetched base models;
    and what nobody asked for since then: models' answers, downloads of versions."""
    workspace = factory.workspace
    found = [*workspace.store.leftovers(), *workspace.store.scratch_folders(), *workspace.half_fetched()]
    for used in (workspace.books, workspace.downloads):  # their folders' times are those of the last use
        found += sorted(used.glob("*/"))
    latest = time.time() - grace.total_seconds()
    return [folder for folder in found if max(path.stat().st_mtime for path in (folder, *folder.rglob("*"))) < latest]


def _release_keys(factory: Factory) -> Iterator[str]:
    """Keys of the stages that make, or explore, the release of the current base."""
    base = factory.current_base()
    if base is None:
        return
    store = factory.workspace.store
    for stages in (release_stages, exploration_stages):
        made = stages(factory.workspace.base_folder(base.digest), base.digest, factory.release_recipe, store)
        yield from (stage.key for stage in made)


def _lineages(factory: Factory) -> Iterator[dict[str, str]]:
    """The keys by name that today's inputs give, and those that versions in production were built from."""
    release, serving = factory.current_release_key(), factory.ledger.serving()
    for name in factory.features:
        if release is not None:
            today = factory.lineage(name, release)
            yield {"feature": name, **today.build, **today.evaluation}
        for row in serving.get(name, []):
            yield {"feature": name, **row.lineage}


def _belongs(inputs: Mapping[str, object], lineages: Sequence[Mapping[str, str]]) -> bool:
    """Whether all inputs that a lineage names have that lineage's values; at least one must be named."""
    for lineage in lineages:
        named = inputs.keys() & lineage.keys()
        if named and all(inputs[name] == lineage[name] for name in named):
            return True
    return False
