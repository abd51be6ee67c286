"""Versions of the features' data: a DVC repository in the workspace, with a folder beside it as its remote.

Notable choices:
- DVC and git are run by this class alone, one process at a time: DVC gives up its own lock after three seconds.
- Each feature has one folder, tracked as one `<feature>.dvc`; a version is that file's MD5 and the git commit of it.
  (MD5 is DVC's transport; what decides freshness is the digest of the records.)
- Steps go write, `dvc add`, push, commit, and each may be repeated: a run that was killed between two of them is
  completed by the next.
- Reading a file needs neither DVC nor git.
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import yaml
from filelock import FileLock, Timeout

from infra.canonical import canonical_json
from infra.errors import FactoryError, Unavailable, can_pass

RECORDS = "records.jsonl"
ADDED = "added.jsonl"
REMOVED = "removed.txt"

_FEATURE = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LOCK_SECONDS = 600.0
_SHARED = "shared"
# Whoever runs the factory is named in its ledger; these commits are the machine's.
_COMMITTER = ("-c", "user.name=adapter-factory", "-c", "user.email=adapter-factory@localhost")
_PLAIN = ("-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false")


class Row(Protocol):
    """A record, as far as this file knows one."""

    @property
    def id(self) -> str:
        """The record's id."""
        ...

    def model_dump(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        ...


@dataclass(frozen=True)
class DataVersion:
    """A version of a feature's data: DVC's MD5 of its folder, the git commit that holds it, and its message."""

    md5: str
    commit: str
    message: str


class DataRepo:
    """The data repository in `folder`; its remote is the folder `<name>-remote` beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.remote = folder.with_name(f"{folder.name}-remote")

    def init(self) -> None:
        """Make the repository if it is not there."""
        with self._locked():
            self._init()

    def snapshot(self, feature: str, files: Mapping[str, bytes | Path], message: str) -> DataVersion:
        """Write files into a feature's folder and make a version of it; the present one if nothing changed.

        Files that are not named stay as they are. Names are relative, with `/`.

        Raises:
            FactoryError: an unusable name, git is missing, or another process holds the repository for too long.
        """
        with self._locked():
            return self._snapshot(feature, files, message)

    def read(self, feature: str, name: str) -> Path | None:
        """Where a file of a feature's data lies, None if there is none."""
        path = self._path(feature, name)
        return path if path.is_file() else None

    def versions(self, feature: str) -> list[DataVersion]:
        """A feature's versions, oldest first."""
        pointer = self._pointer(feature).name
        if not (self.folder / ".git").is_dir():
            return []
        log = self._git("log", "--reverse", "--format=%H %s", "--", pointer, check=False)
        commits = [line.split(" ", 1) for line in log.splitlines()]
        return [
            DataVersion(_md5(self._git("show", f"{commit}:{pointer}")), commit, message) for commit, message in commits
        ]

    def find(self, name: str) -> tuple[str, DataVersion]:
        """The feature and the newest of its versions whose MD5 or commit begins with `name`.

        Raises:
            FactoryError: there is none, or several features have one.
        """
        found = {
            pointer.stem: version
            for pointer in self._pointers()
            for version in self.versions(pointer.stem)
            if name and (version.md5.startswith(name) or version.commit.startswith(name))
        }
        if len(found) != 1:
            several = f"is of several features: {', '.join(found)}; write more of it" if found else "is unknown"
            raise FactoryError(f"data version {name!r} {several}; `factory data log` names them")
        return next(iter(found.items()))

    def files(self, feature: str, version: DataVersion) -> dict[str, bytes]:
        """The files of a version by name, from the cache, else from the remote."""
        with self._locked(), self._dvc(), _quiet(self.folder):
            from dvc.api import DVCFileSystem

            system = DVCFileSystem(str(self.folder), rev=version.commit)
            names = system.find(feature, detail=False)
            return {PurePosixPath(name).relative_to(feature).as_posix(): system.read_bytes(name) for name in names}

    def count(self) -> int:
        """How many versions there are, of all features."""
        return sum(len(self.versions(pointer.stem)) for pointer in self._pointers())

    def push(self, url: str) -> None:
        """Bring the contents of all versions to a folder or `s3://bucket/prefix`."""
        with self._locked(), self._remote(url) as repo:
            repo.push(remote=_SHARED, all_commits=True)

    def pull(self, url: str) -> None:
        """Bring the contents of all versions here from a folder or `s3://bucket/prefix`."""
        with self._locked(), self._remote(url) as repo:
            repo.fetch(remote=_SHARED, all_commits=True)
            repo.checkout()
            repo.push(all_commits=True)

    def write_history(self, bundle: Path) -> None:
        """Write the history of the versions as a git bundle."""
        with self._locked():
            self._init()
            self._git("bundle", "create", "--quiet", str(bundle), "HEAD")

    def relation(self, bundle: Path) -> str:
        """What a history is to the one here: `same`, `ahead`, `behind`, or `apart` if each has what the other lacks."""
        with self._locked():
            self._init()
            theirs = self._fetched(bundle)
            if theirs == self._git("rev-parse", "HEAD").strip():
                return "same"
            if not self._pointers():
                return "ahead"  # nothing was ever versioned here
            common = self._git("merge-base", "HEAD", theirs, check=False).strip()
            return {theirs: "behind", self._git("rev-parse", "HEAD").strip(): "ahead"}.get(common, "apart")

    def take_history(self, bundle: Path) -> None:
        """Go on from a history that is ahead of the one here."""
        with self._locked():
            self._git("reset", "--quiet", "--hard", self._fetched(bundle))

    def status(self) -> dict[str, str]:
        """Each feature's state: `versioned`, `changed` (since its version) or `not pushed` (the remote lacks it)."""
        if not (self.folder / ".dvc").is_dir():
            return {}
        with self._locked(), self._dvc() as repo:
            states = {}
            for pointer in self._pointers():
                target = [str(pointer)]
                if repo.status(targets=target):
                    states[pointer.stem] = "changed"
                else:
                    states[pointer.stem] = "not pushed" if repo.status(targets=target, cloud=True) else "versioned"
            return states

    def add_records(self, feature: str, records: Iterable[Row], corpus: Iterable[Row] = ()) -> DataVersion:
        """Add records to a feature's data; one with a known id takes its place, a removed id is back.

        `corpus` are the records that the added ones lie over; the version holds what then is effective.
        """
        with self._locked():
            added = self._added(feature)
            new = {record.id: record.model_dump() for record in records}
            removed = self._removed(feature) - new.keys()
            files = _overlay_files(corpus, added | new, removed)
            return self._snapshot(feature, files, f"{feature}: add {len(new)} records")

    def remove_records(self, feature: str, ids: Iterable[str], corpus: Iterable[Row] = ()) -> DataVersion:
        """Remove records from a feature's data by id, wherever they came from; `corpus` as in `add_records`."""
        gone = set(ids)
        if broken := [one for one in gone if "\n" in one or not one.strip()]:
            raise FactoryError(f"{broken[0]!r} is no record id")
        with self._locked():
            added = {one: row for one, row in self._added(feature).items() if one not in gone}
            files = _overlay_files(corpus, added, self._removed(feature) | gone)
            return self._snapshot(feature, files, f"{feature}: remove {len(gone)} records")

    def _added(self, feature: str) -> dict[str, dict[str, Any]]:
        path = self.read(feature, ADDED)
        lines = path.read_text("utf-8").split("\n") if path else []
        try:
            return {row["id"]: row for row in (json.loads(line) for line in lines if line.strip())}
        except (ValueError, KeyError, TypeError) as error:
            raise FactoryError(f"{path}: a row is no record ({error}); put the file right by hand") from None

    def _removed(self, feature: str) -> set[str]:
        path = self.read(feature, REMOVED)
        return set(filter(None, path.read_text("utf-8").split("\n"))) if path else set()

    def _path(self, feature: str, name: str) -> Path:
        if not _FILE.fullmatch(name) or ".." in PurePosixPath(name).parts:
            raise FactoryError(f"{name!r} is no name for a data file; use letters, digits, '-', '_', '.' and '/'")
        return self.folder / _checked(feature) / name

    def _pointers(self) -> list[Path]:
        """The files that stand for the features' folders; DVC's own folder, `.dvc`, is none."""
        return sorted(path for path in self.folder.glob("*.dvc") if path.is_file())

    def _pointer(self, feature: str) -> Path:
        return self.folder / f"{_checked(feature)}.dvc"

    def _snapshot(self, feature: str, files: Mapping[str, bytes | Path], message: str) -> DataVersion:
        self._init()
        for name, content in files.items():
            _put(self._path(feature, name), content)
        (self.folder / _checked(feature)).mkdir(exist_ok=True)
        with self._dvc() as repo:
            repo.add([str(self.folder / feature)])
            repo.push([str(self._pointer(feature))])
        self._git("add", "--", self._pointer(feature).name, ".gitignore")
        if self._git("status", "--porcelain", "--untracked-files=no", "--", self._pointer(feature).name, ".gitignore"):
            self._git(*_COMMITTER, "commit", "--quiet", "--message", message)
        return self.versions(feature)[-1]

    def _init(self) -> None:
        if not (self.folder / ".git" / "HEAD").is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._git("init", "--quiet")
        if not (self.folder / ".dvc" / "config").is_file():
            # A run that was killed in here left a part; it holds nothing yet.
            shutil.rmtree(self.folder / ".dvc", ignore_errors=True)
            with _quiet(self.folder):
                from dvc.repo import Repo

                repo = Repo.init(str(self.folder))
                with repo.config.edit(level="repo") as config:
                    # A relative path (DVC writes it relative to its file), so that a workspace may be moved.
                    config["remote"] = {"local": {"url": os.path.relpath(self.remote)}}
                    config["core"] = {"remote": "local", "analytics": False, "check_update": False}
                repo.close()
            self._git("add", "--all", "--", ".dvc", ".dvcignore")
        if not self._git("rev-parse", "--verify", "--quiet", "HEAD", check=False):
            self._git("add", "--all", "--", ".dvc", ".dvcignore")
            self._git(*_COMMITTER, "commit", "--quiet", "--message", "init")

    @contextlib.contextmanager
    def _dvc(self) -> Iterator[Any]:
        """The repository opened by DVC, whose errors become ours."""
        with _quiet(self.folder):
            from dvc.exceptions import DvcException
            from dvc.repo import Repo

            repo = Repo(str(self.folder))
            try:
                yield repo
            except DvcException as error:
                kind = Unavailable if can_pass(error) else FactoryError
                raise kind(f"{self.folder}: DVC: {error}") from error
            finally:
                repo.close()

    @contextlib.contextmanager
    def _remote(self, url: str) -> Iterator[Any]:
        """The repository opened by DVC, which knows the remote under a name; this machine's configuration alone."""
        self._init()
        with self._dvc() as repo, repo.config.edit(level="local") as config:
            config["remote"] = {_SHARED: {"url": url}}
        with self._dvc() as repo:
            yield repo

    def _fetched(self, bundle: Path) -> str:
        """The commit that a bundle ends with, which git then has."""
        self._git("fetch", "--quiet", str(bundle), "+HEAD:refs/shared/head")
        return self._git("rev-parse", "refs/shared/head").strip()

    def _git(self, *arguments: str, check: bool = True) -> str:
        """What git prints. Variables that point git elsewhere (inside a hook, say) are not passed on."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.folder), *_PLAIN, *arguments]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise FactoryError("git is missing, which versions the data; install it") from None
        if check and done.returncode != 0:
            raise FactoryError(f"{self.folder}: git {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the repository for this process."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = self.folder.with_name(f"{self.folder.name}.lock")
        try:
            with FileLock(lock, timeout=_LOCK_SECONDS):
                # Nobody else runs git here while the lock is held: an index lock is what a killed run left.
                (self.folder / ".git" / "index.lock").unlink(missing_ok=True)
                yield
        except Timeout:
            raise Unavailable(
                f"{lock}: held by another process for {_LOCK_SECONDS:.0f} s; end that one first"
            ) from None


def _checked(feature: str) -> str:
    if not _FEATURE.fullmatch(feature):
        raise FactoryError(f"{feature!r} is no feature's name: small letters, digits and '-', a letter first")
    return feature


def _put(path: Path, content: bytes | Path) -> None:
    """Write or copy a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    if isinstance(content, Path):
        shutil.copyfile(content, temporary)
    else:
        temporary.write_bytes(content)
    temporary.replace(path)


def _overlay_files(
    corpus: Iterable[Row], added: Mapping[str, dict[str, Any]], removed: Collection[str]
) -> dict[str, bytes]:
    """The overlay, and the effective records as a run would keep them: versions compare only if all hold these."""
    effective = {record.id: record.model_dump() for record in corpus} | dict(added)
    return {
        RECORDS: _lines({one: row for one, row in effective.items() if one not in removed}),
        ADDED: _lines(added),
        REMOVED: "".join(f"{one}\n" for one in sorted(removed)).encode(),
    }


def _lines(rows: Mapping[str, dict[str, Any]]) -> bytes:
    return b"".join(canonical_json(rows[one]) + b"\n" for one in sorted(rows))


def _md5(pointer: str) -> str:
    return str(yaml.safe_load(pointer)["outs"][0]["md5"])


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """Keep DVC's messages, scratch files and changes to logging to itself; hide a surrounding git from it."""
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp")}
    ours = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(folder.absolute() / ".dvc" / "tmp" / "site")}
    before = {name: value for name, value in os.environ.items() if name in ours or name.startswith("GIT_")}
    for name in before:
        del os.environ[name]
    os.environ.update(ours)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            import dvc.logger  # noqa: F401  (its import installs handlers and levels, which the next lines undo)

            for name in ("dvc", "dvc_objects", "dvc_data"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield
    finally:
        for name in ours:
            del os.environ[name]
        os.environ.update(before)
