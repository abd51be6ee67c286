"""What can be wrong with a machine, its servers and a workspace's files; each finding says what to do about it."""

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from infra.errors import FactoryError, masked
from infra.store import Store

CONSTRAINTS = Path(__file__).with_name("constraints.txt")
# A base release and three adapters leave 2 GB behind, and build in as much again.
_ROOM_GB = 4.0
_SKEW_SECONDS = 300.0
_SECRETS = re.compile(r'^\s*(\w*(?:api_key|password|secret))\s*=\s*["\'][^"\']', re.MULTILINE)
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==(\S+)")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: which check found it, what it is, and what to do."""

    check: str
    problem: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """The documented JSON form."""
        return asdict(self)


def from_error(check: str, error: FactoryError) -> Finding:
    """An error as a finding; what comes after its first semicolon is what to do."""
    problem, _, remedy = str(error).partition("; ")
    return Finding(check, problem, remedy or "see above")


def check_versions(constraints: Path, needed: set[str]) -> Iterator[Finding]:
    """Distributions in another version than a constraints file has, and those `needed` that are not installed."""
    remedy = f"`pip install --constraint {constraints} …` puts the tested versions there"
    for name, pinned in _PIN.findall(constraints.read_text("utf-8")):
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            if name in needed:
                yield Finding("versions", f"{name} is not installed", remedy)
            continue
        if found != pinned:
            yield Finding("versions", f"{name} is {found}, tested with {pinned}", remedy)


def check_disk(root: Path) -> Iterator[Finding]:
    """A workspace without room, or one that cannot be written to."""
    free = shutil.disk_usage(root).free / 1e9
    if free < _ROOM_GB:
        remedy = "`factory gc` frees what nothing needs any more; or move the workspace (`home`)"
        yield Finding("disk", f"{root}: {free:.1f} GB free, a run may need {_ROOM_GB:.0f}", remedy)
    if not os.access(root, os.W_OK):
        yield Finding("disk", f"{root}: cannot be written to", "give this user the rights, or name another `home`")


def check_server(name: str, url: str) -> Iterator[Finding]:
    """A server whose health page does not answer 200, or whose clock and ours differ."""
    import httpx

    try:
        answer = httpx.get(url, timeout=5.0, trust_env=False)
    except httpx.HTTPError as error:
        yield Finding(
            "servers", masked(f"{name} at {url}: {error}"), "start it, or correct its address in the settings"
        )
        return
    if answer.status_code != 200:
        yield Finding("servers", f"{name} at {masked(url)}: answers {answer.status_code}", "look into its log")
    if "date" in answer.headers:
        skew = time.time() - parsedate_to_datetime(answer.headers["date"]).timestamp()
        if abs(skew) > _SKEW_SECONDS:
            problem = f"this machine's clock and that of {name} differ by {abs(skew) / 60:.0f} minutes"
            yield Finding("clock", problem, "let both follow a time server (NTP)")


def check_clock(marks: Mapping[str, datetime]) -> Iterator[Finding]:
    """Something that was written down later than now: the clock has gone backwards."""
    now = datetime.now(UTC)
    for what, when in marks.items():
        ahead = (when - now).total_seconds()
        if ahead > _SKEW_SECONDS:
            problem = f"{what} is {ahead / 60:.0f} minutes in the future: the clock went backwards, or was ahead then"
            yield Finding(
                "clock", problem, "set the clock (NTP); rows and signatures are ordered by number, not by time"
            )


def check_secrets(config: Path, keys: Path) -> Iterator[Finding]:
    """Secrets that other users of the machine can read."""
    if config.is_file() and config.stat().st_mode & 0o004 and (found := _SECRETS.search(config.read_text("utf-8"))):
        remedy = f"put it into the variable FACTORY_{found[1].upper()}, or `chmod 600 {config}`"
        yield Finding("credentials", f"{config}: {found[1]} can be read by every user of this machine", remedy)
    for path in sorted(keys.glob("*.pem")):
        if path.stat().st_mode & 0o007:
            problem = f"{path}: every user of this machine can use this key"
            yield Finding("credentials", problem, f"`chmod 600 {path}`, then `factory channel rotate {path.stem}`")


def check_bucket(setting: str, place: str) -> Iterator[Finding]:
    """A place in S3 that cannot be listed with the credentials that are there."""
    from infra.s3 import open_client, s3_errors

    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    try:
        with s3_errors(f"{setting} = {place}"):
            open_client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except FactoryError as error:
        yield from_error("credentials", error)


def check_store(store: Store, half_fetched: list[Path]) -> Iterator[Finding]:
    """What killed builds and damage have left in the store, and outputs from the future."""
    remedy = "`factory gc --older-than 0h` removes it; whatever is needed is built again"
    for folder in store.leftovers():
        yield Finding("store", f"{folder}: damaged, or half-made by a build that was killed", remedy)
    for folder in half_fetched:
        yield Finding("store", f"{folder}: a base model whose download was killed, or is under way", remedy)
    newest = max((entry.created for entry in store.entries()), default=0.0)
    yield from check_clock({"the newest output in the store": datetime.fromtimestamp(newest, UTC)})
