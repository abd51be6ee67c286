"""Signatures are renewed before they expire, and keys rotated so that devices never see a state that they refuse."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.device.client import Refused
from infra.errors import FactoryError
from registry.channel import upkeep
from registry.channel.keys import Keys
from registry.channel.metadata import utc_now
from registry.channel.repository import Repository
from tests.registry.workshop import SUMMARIES, Workshop

ROLES = ["root", "targets", "snapshot", "timestamp", "feature-summarization"]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def test_nothing_is_signed_that_is_not_due(shop: Workshop) -> None:
    shop.promote(shop.release())
    assert upkeep.refresh(shop.channel.repository) == upkeep.Upkeep([], [])


@pytest.mark.parametrize(
    ("days", "signed"),
    [
        (-4, ["snapshot", "timestamp"]),
        (-100, ["feature-base", "feature-summarization", "snapshot", "targets", "timestamp"]),
        (-200, ["root", "feature-base", "feature-summarization", "snapshot", "targets", "timestamp"]),
    ],
)
def test_what_is_half_through_is_signed_again(shop: Workshop, days: int, signed: list[str]) -> None:
    shop.now = lambda: utc_now() + timedelta(days=days)
    release = shop.release()
    shop.promote(release)
    shop.now = utc_now
    repository = shop.channel.repository
    warned = upkeep.warnings_of(repository, repository.published())
    assert len(warned) == 1
    assert warned[0].startswith("timestamp expires soon" if days == -4 else "timestamp has expired")
    assert upkeep.refresh(repository) == upkeep.Upkeep(signed, [])
    assert shop.device().pull(SUMMARIES, release[0]).version == 1
    assert all(not upkeep.is_due(name, when, utc_now()) for name, when in repository.published().expiries.items())


def test_a_root_that_ends_soon_is_warned_of_until_its_key_is_brought(shop: Workshop, tmp_path: Path) -> None:
    shop.now = lambda: utc_now() - timedelta(days=310)
    release = shop.release()
    shop.promote(release)
    shop.now = utc_now
    (shop.folder / "keys/root.pem").rename(tmp_path / "offline.pem")
    done = upkeep.refresh(shop.channel.repository)
    assert "root" not in done.signed
    assert "bring its key" in done.warnings[0]
    shop.device().pull(SUMMARIES, release[0])
    keys = Keys(shop.folder / "keys", tmp_path / "offline.pem")
    assert upkeep.refresh(Repository(shop.channel.repository.store, keys)) == upkeep.Upkeep(["root"], [])
    shop.device().pull(SUMMARIES, release[0])


@pytest.mark.parametrize("role", ["targets", "feature-summarization"])
def test_a_key_that_is_kept_elsewhere_stops_no_other_signature(shop: Workshop, tmp_path: Path, role: str) -> None:
    release = shop.release()
    shop.promote(release)
    (shop.folder / f"keys/{role}.pem").rename(tmp_path / "offline.pem")
    shop.now = lambda: utc_now() + timedelta(days=100)
    expires = shop.channel.repository.published().expiries[role]
    done = upkeep.refresh(shop.channel.repository)
    assert role not in done.signed
    assert {"snapshot", "timestamp", "feature-base"} <= set(done.signed)
    assert done.warnings == [
        f"{role} expires on {expires:%Y-%m-%d} and its key is not here; bring {role}.pem back and run `factory channel "
        "refresh`"
    ]
    shop.device().pull(SUMMARIES, release[0])
    (tmp_path / "offline.pem").rename(shop.folder / f"keys/{role}.pem")
    assert upkeep.refresh(shop.channel.repository) == upkeep.Upkeep(sorted([role, "snapshot", "timestamp"]), [])


def test_a_role_that_expired_while_its_key_was_elsewhere_is_told(shop: Workshop, tmp_path: Path) -> None:
    shop.promote(shop.release())
    (shop.folder / "keys/targets.pem").rename(tmp_path / "offline.pem")
    shop.now = lambda: utc_now() + timedelta(days=200)
    (warning,) = upkeep.refresh(shop.channel.repository).warnings
    assert warning.startswith("targets expired on ")
    assert "devices refuse" in warning


@pytest.mark.parametrize("role", ROLES)
def test_a_rotated_key_signs_and_devices_follow(shop: Workshop, role: str) -> None:
    release = shop.release()
    shop.promote(release)
    shop.device().pull(SUMMARIES, release[0])
    old = (shop.folder / f"keys/{role}.pem").read_bytes()
    upkeep.rotate(shop.channel.repository, role)
    assert shop.device().pull(SUMMARIES, release[0]).version == 1
    assert (shop.folder / f"keys/{role}.pem").read_bytes() != old
    shop.promote(release, version=2)
    assert shop.device().pull(SUMMARIES, release[0]).version == 2
    assert shop.device("new").pull(SUMMARIES, release[0]).version == 2
    (shop.folder / f"keys/{role}.pem").write_bytes(old)
    with pytest.raises(FactoryError, match="not the one that this channel names"):
        if role == "root":
            upkeep.rotate(shop.channel.repository, "timestamp")
        else:
            shop.channel.repository.commit(lambda draft, state: draft.renew.add(role))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("role", ROLES)
def test_a_rotation_that_was_stopped_anywhere_goes_on(
    shop: Workshop, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = shop.release()
    shop.promote(release)
    shop.device().pull(SUMMARIES, release[0])
    steps, finished = 0, False
    while not finished:
        repository = shop.channel.repository
        left = [steps]
        for place, name in ((repository.store, "put"), (repository.keys, "keep_root"), (repository.keys, "take_next")):
            done = getattr(place, name)

            def stopping(*arguments: object, done=done, left=left) -> object:  # type: ignore[no-untyped-def]
                if left[0] == 0:
                    raise Stopped
                left[0] -= 1
                return done(*arguments)

            setattr(place, name, stopping)
        try:
            upkeep.rotate(repository, role)
            finished = True
        except Stopped:
            steps += 1
        assert shop.device().pull(SUMMARIES, release[0]).version == 1
        assert shop.device(f"new {steps}").pull(SUMMARIES, release[0]).version == 1
    assert steps >= 2
    shop.promote(release, version=2)
    assert shop.device().pull(SUMMARIES, release[0]).version == 2


def test_a_rotation_needs_the_root_key_before_it_begins(shop: Workshop, tmp_path: Path) -> None:
    shop.promote(shop.release())
    (shop.folder / "keys/root.pem").rename(tmp_path / "offline.pem")
    with pytest.raises(FactoryError, match="--root-key"):
        upkeep.rotate(shop.channel.repository, "timestamp")
    assert not list((shop.folder / "keys").glob("*.next.pem"))
    upkeep.rotate(shop.channel.repository, "feature-summarization")
    with pytest.raises(FactoryError, match="no role of this channel"):
        upkeep.rotate(shop.channel.repository, "feature-titles")


def test_what_a_stolen_key_signs_after_its_rotation_is_refused(shop: Workshop, tmp_path: Path) -> None:
    release = shop.release()
    shop.promote(release)
    shop.device().pull(SUMMARIES, release[0])
    stolen = Workshop(tmp_path / "thief")
    for name in ("keys", "channel"):
        shutil.copytree(shop.folder / name, stolen.folder / name)
    upkeep.rotate(shop.channel.repository, "timestamp")
    shop.device().pull(SUMMARIES, release[0])
    stolen.channel.repository.commit(lambda draft, state: draft.renew.add("timestamp"))
    forged = (stolen.folder / "channel/metadata/timestamp.json").read_bytes()
    (shop.folder / "channel/metadata/timestamp.json").write_bytes(forged)
    with pytest.raises(Refused, match="not signed by the keys"):
        shop.device().pull(SUMMARIES, release[0])
