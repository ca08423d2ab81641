"""Engines are built once, and again, with a word why, where a file is not what it should be."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from memwarp_core.errors import ConfigError, ExportError
from memwarp_core.export.engine_cache import EngineKey, cache_folder, cached_engine, write_engine

KEY = EngineKey(
    name="memnet-tiny-step", graph="a" * 64, precision="fp16", shape="1x3x192x320", tensorrt="10.7.0", gpu="H100 9.0"
)
ENGINE = bytes(range(256)) * 8


class Builder:
    """Stands for TensorRT: counts what it builds, and loads engines by giving them back."""

    def __init__(self) -> None:
        self.built = 0
        self.unloadable: set[bytes] = set()

    def build(self) -> bytes:
        self.built += 1
        return ENGINE

    def load(self, engine: bytes) -> bytes:
        if engine in self.unloadable:
            raise ExportError("the driver is another one")
        return engine

    def get(self, folder: Path, key: EngineKey = KEY) -> bytes:
        return cached_engine(key, folder, self.build, self.load)


def messages(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records)


def test_an_engine_is_built_once_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    builder = Builder()
    folder = tmp_path / "new" / "tensorrt"
    assert [builder.get(folder), builder.get(folder)] == [ENGINE, ENGINE]
    assert builder.built == 1
    assert [file.name for file in folder.iterdir()] == [KEY.file_name]
    assert messages(caplog).count("building") == 1 and "there is none yet" in messages(caplog)
    assert {record.levelno for record in caplog.records} == {logging.WARNING}  # what Python shows unasked


@pytest.mark.parametrize("part", ["graph", "precision", "shape", "tensorrt", "gpu"])
def test_another_graph_precision_shape_version_or_gpu_has_another_engine(
    part: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder = Builder()
    builder.get(tmp_path)
    other = replace(KEY, **{part: "another"})
    builder.get(tmp_path, other)
    assert builder.built == 2
    assert f"{KEY.file_name} is of another one, {part} {getattr(KEY, part)[:12]} and not another" in messages(caplog)
    builder.get(tmp_path)
    builder.get(tmp_path, other)
    assert builder.built == 2, "both are kept"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def cut_off_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-9] + b"\x00" + content[-8:])


def put_a_plain_engine_there(path: Path) -> None:
    path.write_bytes(ENGINE)


def put_another_machines_file_there(path: Path) -> None:
    write_engine(path, replace(KEY, gpu="Orin 8.7"), b"of another GPU")


def write_as_a_later_version(path: Path) -> None:
    header, engine = path.read_bytes().split(b"\n", 1)
    path.write_bytes(json.dumps({**json.loads(header), "layout": 2}).encode() + b"\n" + engine)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (cut_off, "cut off, 2047 of 2048 bytes"),
        (cut_off_in_the_header, "none that memwarp wrote, or is cut off"),
        (empty, "none that memwarp wrote, or is cut off"),
        (damage, "damaged, its checksum is another one"),
        (put_a_plain_engine_there, "none that memwarp wrote"),
        (put_another_machines_file_there, "of another engine, gpu Orin 8.7 and not H100 9.0"),
        (write_as_a_later_version, "none that memwarp wrote"),
    ],
)
def test_a_spoiled_file_is_built_again_and_the_reason_is_said(
    spoil, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    builder = Builder()
    builder.get(tmp_path)
    spoil(tmp_path / KEY.file_name)
    caplog.clear()
    assert builder.get(tmp_path) == ENGINE
    assert builder.built == 2 and why in messages(caplog)
    assert builder.get(tmp_path) == ENGINE
    assert builder.built == 2, "the new file is good"


def test_an_engine_that_cannot_be_loaded_is_built_again_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    builder = Builder()
    write_engine(tmp_path / KEY.file_name, KEY, b"built under another driver")
    builder.unloadable = {b"built under another driver"}
    assert builder.get(tmp_path) == ENGINE
    assert builder.built == 1 and "the driver is another one" in messages(caplog)

    builder.unloadable = {ENGINE}
    with pytest.raises(ExportError, match="the driver is another one"):
        builder.get(tmp_path)
    assert builder.built == 2


def test_a_build_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> bytes:
        raise ExportError("out of memory")

    with pytest.raises(ExportError, match="out of memory"):
        cached_engine(KEY, tmp_path, fail, bytes)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_the_users_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEMWARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/memwarp/tensorrt"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/memwarp/tensorrt"
    monkeypatch.setenv("MEMWARP_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine/tensorrt"


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    builder = Builder()
    with pytest.raises(ConfigError, match="set MEMWARP_CACHE"):
        builder.get(tmp_path / "file" / "tensorrt")
    assert builder.built == 0
