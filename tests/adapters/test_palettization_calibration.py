"""The calibration windows: the frozen text and the base's own."""

from pathlib import Path

import pytest
import torch

from adapters.inference.models import load_tokenizer
from adapters.palettization.calibration import CALIBRATION, read_calibration, write_calibration
from adapters.palettization.recipe import CalibrationSection
from adapters.palettization.text import FrozenText
from infra.errors import FactoryError
from tests.tiny import make_tiny_base

TEXT = FrozenText(file="calibration-1.txt", tokens=256, window=32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


def write(base: Path, folder: Path, **changes: int) -> torch.Tensor:
    folder.mkdir()
    write_calibration(base, CalibrationSection(text=TEXT, **changes), folder, torch.float32, "cpu")
    return read_calibration(folder, 10_000)


def test_the_frozen_text_is_there_in_another_order(base: Path, tmp_path: Path) -> None:
    windows = write(base, tmp_path / "one")
    frozen = TEXT.windows(load_tokenizer(base))
    assert not torch.equal(windows, frozen)
    assert sorted(windows.tolist()) == sorted(frozen.tolist())
    assert torch.equal(read_calibration(tmp_path / "one", 70), windows[:2])


def test_the_base_writes_what_is_asked_for_beyond_it(base: Path, tmp_path: Path) -> None:
    windows = write(base, tmp_path / "one", sampled_tokens=640)
    assert windows.shape == (8 + 640 // 32, 32)
    assert {tuple(row) for row in TEXT.windows(load_tokenizer(base)).tolist()} < {
        tuple(row) for row in windows.tolist()
    }
    again = write(base, tmp_path / "two", sampled_tokens=640)
    assert (tmp_path / "one" / CALIBRATION).read_bytes() == (tmp_path / "two" / CALIBRATION).read_bytes()
    assert not torch.equal(again, write(base, tmp_path / "three", sampled_tokens=640, seed=1))


def test_less_than_a_window_is_refused(base: Path, tmp_path: Path) -> None:
    write(base, tmp_path / "one")
    with pytest.raises(FactoryError, match="31 tokens are less than one window of 32"):
        read_calibration(tmp_path / "one", 31)
