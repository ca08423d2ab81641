"""A fast and a strong detector: ros2 launch memwarp_ros fast_strong.launch.py image_topic:=/camera/image_raw

The fast one answers every image and borrows the features of the strong one, which runs beside it, best on a device of
its own: device:=cuda:0 strong_device:=cuda:1. The other arguments are those of detector.launch.py.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import SetParameter
from launch_ros.substitutions import FindPackageShare

DETECTOR = PythonLaunchDescriptionSource(str(Path(__file__).with_name("detector.launch.py")))
OWN = {
    "name": "fast_strong",
    "executable": "fast_strong_node",
    "params_file": PathJoinSubstitution([FindPackageShare("memwarp_ros"), "config", "fast_strong.yaml"]),
}
"""The arguments of detector.launch.py that have other defaults here."""


def pair(context: LaunchContext) -> list[GroupAction]:
    """The node, once the values of the arguments are known."""
    strong_device = LaunchConfiguration("strong_device").perform(context)
    given = [SetParameter("strong_device", strong_device)] if strong_device else []
    return [GroupAction([*given, IncludeLaunchDescription(DETECTOR)])]


def generate_launch_description() -> LaunchDescription:
    arguments = DETECTOR.get_launch_description(LaunchContext()).get_launch_arguments()
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "strong_device", default_value="", description="Of the strong detector. Empty: as in params_file."
            ),
            *(
                DeclareLaunchArgument(of.name, default_value=OWN[of.name], description=of.description)
                if of.name in OWN
                else of
                for of in arguments
            ),
            OpaqueFunction(function=pair),
        ]
    )
