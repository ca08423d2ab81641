"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file of a temporary name beside `path`, then rename it to `path`.

    Others may read it as they may any new file of the user's, also where a library made it for the user alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: image writers choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@cache
def _umask() -> int:
    """It can only be read by setting it."""
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


def write_bytes_whole(path: Path, content: bytes) -> None:
    write_whole(path, lambda temporary: temporary.write_bytes(content))
