"""The device's client: gets what the channel says for its base release, once, whole, over a folder or over HTTP."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from adapters.device.base_package import verify_base_package
from adapters.device.channel_layout import Pointer, Rollout, checked_file
from adapters.device.client import Device
from adapters.device.package import WEIGHTS, verify_package
from infra.canonical import digest
from infra.errors import FactoryError
from tests.registry.workshop import SUMMARIES, WRITING, Workshop

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture
def address(shop: Workshop) -> Iterator[str]:
    """The channel over HTTP."""
    (shop.folder / "channel").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shop.folder / "channel")))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_device_gets_its_base_release_and_its_adapters(shop: Workshop, address: str) -> None:
    release = shop.release()
    row = shop.promote(release)
    device = shop.device(channel=address)
    base = device.pull_base()
    assert (base.base_release, base.folder) == (release[0], shop.folder / "device/base")
    assert verify_base_package(base.folder).base_release == release[0]
    pulled = device.pull(SUMMARIES)
    metadata = verify_package(pulled.folder)
    assert (metadata.feature, metadata.version, metadata.digest) == (SUMMARIES, 1, row.package)
    assert pulled.downloaded == sum(path.stat().st_size for path in pulled.folder.iterdir())
    assert device.pull(SUMMARIES).downloaded == 0
    assert {path.name for path in (shop.folder / "device").iterdir()} == {".channel", "base", SUMMARIES}


def test_each_base_release_gets_its_own_version(shop: Workshop) -> None:
    one, two = shop.release("one"), shop.release("two")
    shop.promote(one, version=1)
    shop.promote(two, version=2)
    assert shop.device("old").pull_base(one[0]).version == 1
    assert shop.device("old").pull(SUMMARIES).version == 1
    assert shop.device("new").pull_base().base_release == two[0]
    assert shop.device("new").pull(SUMMARIES).version == 2
    with pytest.raises(FactoryError, match="an adapter for another would not fit"):
        shop.device("new").pull(SUMMARIES, one[0])


def test_a_device_goes_forward_and_back_as_the_channel_does(shop: Workshop) -> None:
    release = shop.release()
    for version in (1, 2, 1):
        shop.promote(release, version=version)
        pulled = shop.device().pull(SUMMARIES, release[0])
        assert (pulled.version, verify_package(pulled.folder).version) == (version, version)


def test_what_was_damaged_on_the_device_is_fetched_again(shop: Workshop) -> None:
    release = shop.release()
    shop.promote(release)
    folder = shop.device().pull(SUMMARIES, release[0]).folder
    (folder / WEIGHTS).write_bytes(b"")
    (folder / "more").write_text("")
    assert shop.device().pull(SUMMARIES, release[0]).downloaded > 0
    verify_package(folder)


def test_a_kill_between_the_two_renames_costs_no_package(shop: Workshop) -> None:
    release = shop.release()
    shop.promote(release)
    shop.device().pull(SUMMARIES, release[0])
    shop.promote(release, version=2)
    child = os.fork()
    if child == 0:
        renames = [0]

        def second(path: Path, target: Path, rename=Path.rename) -> Path:  # type: ignore[no-untyped-def]
            renames[0] += 1
            if renames[0] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        Path.rename = second  # type: ignore[method-assign,assignment]
        shop.device().pull(SUMMARIES, release[0])
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert not (shop.folder / "device" / SUMMARIES).exists()
    with pytest.raises(FactoryError, match="nothing of titles"):  # whatever comes next
        shop.device().pull("titles", release[0])
    assert shop.device().pull(SUMMARIES, release[0]).version == 2


def test_a_share_of_the_devices_is_the_same_share_at_every_pull() -> None:
    rollout = Rollout(version=2, package=digest("two"), share=0.2)
    pointer = Pointer(
        feature=WRITING, base_release=digest("one"), version=1, package=digest("one"), number=3, row=digest("row"),
        rollout=rollout,
    )  # fmt: skip
    devices = [f"device {number}" for number in range(2000)]
    early = {device for device in devices if pointer.version_for(device) == (2, digest("two"))}
    assert 0.16 < len(early) / len(devices) < 0.24
    more = pointer.model_copy(update={"rollout": rollout.model_copy(update={"share": 0.5})})
    later = {device for device in devices if more.version_for(device)[0] == 2}
    assert early < later
    next_one = pointer.model_copy(update={"rollout": rollout.model_copy(update={"version": 3})})
    assert {device for device in devices if next_one.version_for(device)[0] == 3} != early
    whole = pointer.model_copy(update={"rollout": rollout.model_copy(update={"share": 1.0})})
    assert {whole.version_for(device)[0] for device in devices} == {2}


def test_what_cannot_be_had_is_one_line(shop: Workshop, tmp_path: Path) -> None:
    release = shop.release()
    shop.promote(release)

    def reason(device: Device, feature: str = SUMMARIES, base: str | None = release[0]) -> str:
        with pytest.raises(FactoryError) as error:
            device.pull(feature, base)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "pull `base` first" in reason(shop.device(), base=None)
    assert "nothing of writing for base release" in reason(shop.device(), WRITING)
    assert "nothing of summarization" in reason(shop.device(), base=digest("other"))
    assert "no base release" in reason(shop.device(), base="abc")
    assert "no feature's name" in reason(shop.device(), "../etc")
    assert "--root" in reason(Device(shop.location, tmp_path / "bare"))
    assert "no such folder" in reason(shop.device("x", channel=str(tmp_path / "nowhere")))
    assert "web address of the bucket" in reason(shop.device("x", channel="s3://bucket/channel"))
    assert "cannot be fetched" in reason(shop.device("x", channel="http://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../x", "a//x", "", ".x", "a\\x", "c:x", "a/b/c/d", "x\n", "a/./b"])
def test_a_package_has_no_path_out_of_its_folder(name: str) -> None:
    with pytest.raises(FactoryError, match="no path inside a package"):
        checked_file(name)


def test_the_client_needs_nothing_of_the_factory() -> None:
    # python-tuf itself looks for boto3 and takes it if it is there.
    heavy = "torch", "mlflow", "prefect", "sqlalchemy", "transformers", "dvc", "registry", "flows"
    code = f"import sys, adapters.device.client; print([name for name in {heavy!r} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
