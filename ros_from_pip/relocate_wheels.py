"""Make the CMake files of the ROS wheels in this Python environment point at this Python environment.

The wheels export CMake targets with the include folder and the site-packages of the Python on which they were
built, and CMake refuses a target whose folders do not exist. Run it with the environment's own Python after every
installation; a second run changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path


def main() -> None:
    include, packages = Path(sysconfig.get_path("include")), Path(sysconfig.get_path("purelib"))
    if not (include / "Python.h").is_file():
        sys.exit(
            f"expected the headers of this Python, found no {include / 'Python.h'}; "
            "install them (on Debian and Ubuntu the package is called python3-dev) or choose another PYTHON="
        )
    foreign_python = re.compile(r"/opt/python/[^/;\"]+/(?:(include)/python[\d.]+|lib/python[\d.]+/site-packages)")
    for cmake_file in Path(sys.prefix, "share").rglob("*.cmake"):
        text = cmake_file.read_text()
        local = foreign_python.sub(lambda match: str(include if match[1] else packages), text)
        if local != text:
            temporary = cmake_file.with_suffix(".tmp")
            temporary.write_text(local)
            temporary.replace(cmake_file)


if __name__ == "__main__":
    main()
