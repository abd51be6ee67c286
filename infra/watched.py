"""What a source that announces nothing holds now, as a short mark that changes when its content does.

Cheap to ask for again and again: a hub's commit, the ETags below an S3 prefix, sizes and times of a folder's files.
"""

from pathlib import Path

from infra.base_sources.bucket import bucket_revision
from infra.base_sources.files import choose_files
from infra.base_sources.hub import hub_revision
from infra.canonical import digest
from infra.errors import FactoryError
from infra.sources import parse_source


def revision_of(source: str) -> str:
    """The mark of a base model's source: `hf://ORG/NAME[@REVISION]`, `s3://BUCKET/PREFIX` or a folder.

    Raises:
        FactoryError: it cannot be watched, cannot be reached, or holds no model.
    """
    kind, place, revision = parse_source(source)
    if kind == "hf":
        return hub_revision(place, revision)
    if kind == "s3":
        return bucket_revision(place, revision or "")
    if kind == "folder":
        folder = Path(place).expanduser()
        if not folder.is_dir():
            raise FactoryError(f"{source}: no such folder")
        names = choose_files((path.name for path in folder.iterdir() if path.is_file()), source)
        stats = {name: (folder / name).stat() for name in names}
        return digest({name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()})
    raise FactoryError(f"{source}: a wheel is pinned and never changes; watch a hub, a bucket or a folder")
