"""Where the demo and the measurements talk: on this machine alone, in a ROS domain that hardly anybody else is in."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory


def local_domain() -> dict[str, str]:
    """The environment variables of such a domain, for a process that has not yet initialized rclpy, and its children.

    Raises: PackageNotFoundError if memwarp_ros is not installed.
    """
    # Fast DDS's own defaults lose big best-effort images; the file says why.
    profile = str(Path(get_package_share_directory("memwarp_ros"), "config", "fastdds.xml"))
    variables = {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": str(80 + os.getpid() % 20),
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
    }
    if os.environ.get("ROS_DISTRO") == "humble":  # does not know the discovery range yet
        variables["ROS_LOCALHOST_ONLY"] = "1"
    return variables
