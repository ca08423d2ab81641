"""TensorRT engines on disk: built once for a graph, a GPU and a version, and looked at before they are believed.

A file is one line of JSON (what the engine was built from and for, its size, its checksum) and the engine itself.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from memwarp_core.errors import ConfigError, ExportError
from memwarp_core.files import write_bytes_whole

CACHE_VARIABLE = "MEMWARP_CACHE"
_LAYOUT = 1
"""Of the files; those of another one are built again."""
_LONGEST_HEADER = 65536
_LOGGER = logging.getLogger(__name__)
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineKey:
    """All that an engine depends on."""

    name: str
    """Of the model and its graph, for people: memnet-tiny-step."""
    graph: str
    """SHA-256 of the ONNX file, which has the weights inside."""
    precision: str
    shape: str
    """Of the image, 1x3x192x320."""
    tensorrt: str
    """Its version."""
    gpu: str
    """Its name and compute capability."""

    @property
    def file_name(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()
        return f"{self.name}-{digest[:16]}.engine"


def cache_folder() -> Path:
    """Where engines are kept: in $MEMWARP_CACHE, else in memwarp in $XDG_CACHE_HOME, else in ~/.cache/memwarp."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "tensorrt"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "memwarp" / "tensorrt"


def cached_engine(
    key: EngineKey, folder: Path, build: Callable[[], bytes], load: Callable[[bytes], _Loaded]
) -> _Loaded:
    """The engine of a key: from its file, or built, written and loaded; a warning in the log says that and why.

    Args:
        folder: of the cache.
        build: makes the engine; it may take minutes.
        load: makes of an engine what is returned; it raises ExportError for one that it cannot use.
    Raises:
        ConfigError: the folder cannot be written to.
        ExportError: a new engine cannot be loaded, either.
        And what `build` raises.
    """
    path = folder / key.file_name
    try:
        return load(_read(path, key))
    except ExportError as error:
        why = error
    _need_writable(folder)
    _LOGGER.warning("%s: building a TensorRT engine, which may take minutes: %s", path, why)
    began = time.monotonic()
    engine = build()
    write_engine(path, key, engine)
    _LOGGER.warning("%s: built in %.0f s", path, time.monotonic() - began)
    return load(engine)


def write_engine(path: Path, key: EngineKey, engine: bytes) -> None:
    """Write a file of the cache; it appears whole."""
    header = {"layout": _LAYOUT, "key": asdict(key), "bytes": len(engine), "sha256": _digest(engine)}
    write_bytes_whole(path, json.dumps(header).encode() + b"\n" + engine)


def _need_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made ({error}); set {CACHE_VARIABLE} to another folder.") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder}: expected a folder that can be written to; set {CACHE_VARIABLE} to another one.")


def _read(path: Path, key: EngineKey) -> bytes:
    """
    Raises: ExportError, saying why, if the file has no engine for the key.
    """
    if not path.is_file():
        raise ExportError(_why_missing(path.parent, key))
    with path.open("rb") as file:
        header = _header(file.readline(_LONGEST_HEADER))
        engine = file.read()
    if header is None:
        raise ExportError("the file there is none that memwarp wrote, or is cut off")
    if header["key"] != asdict(key):
        raise ExportError(f"the file there is of another engine, {_differences(header['key'], key)}")
    if len(engine) != header["bytes"]:
        raise ExportError(f"the file there is cut off, {len(engine)} of {header['bytes']} bytes")
    if _digest(engine) != header["sha256"]:
        raise ExportError("the file there is damaged, its checksum is another one")
    return engine


def _why_missing(folder: Path, key: EngineKey) -> str:
    others = sorted(folder.glob(f"{key.name}-*.engine"), key=lambda path: path.stat().st_mtime)
    for path in reversed(others):
        with path.open("rb") as file:
            header = _header(file.readline(_LONGEST_HEADER))
        if header is not None:
            return f"there is none yet; {path.name} is of another one, {_differences(header['key'], key)}"
    return "there is none yet"


def _header(line: bytes) -> dict[str, Any] | None:
    try:
        header = json.loads(line)
        return header if header["layout"] == _LAYOUT and {"key", "bytes", "sha256"} <= header.keys() else None
    except (ValueError, TypeError, KeyError):
        return None


def _differences(old: dict[str, str], key: EngineKey) -> str:
    pairs = [(name, old.get(name, ""), value) for name, value in asdict(key).items()]
    return ", ".join(f"{name} {_short(was)} and not {_short(now)}" for name, was, now in pairs if was != now)


def _short(value: str) -> str:
    """A checksum by its beginning."""
    return value[:12] if len(value) == 64 else value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
