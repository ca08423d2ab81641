"""A detector for each of several cameras: ros2 launch memwarp_ros multi_camera.launch.py cameras:=front,rear

A camera is a namespace: /front/detector listens to /front/image_raw, or to /front/<image_topic> where that is given.
The other arguments are those of detector.launch.py and hold for every camera.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

DETECTOR = str(Path(__file__).with_name("detector.launch.py"))


def detectors(context: LaunchContext) -> list[IncludeLaunchDescription]:
    """One per camera, once their names are known."""
    cameras = [camera.strip() for camera in LaunchConfiguration("cameras").perform(context).split(",")]
    if not all(cameras) or len(set(cameras)) < len(cameras):
        raise RuntimeError(f"cameras must be different names with commas between them, got {cameras}.")
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(DETECTOR), launch_arguments={"namespace": camera}.items()
        )
        for camera in cameras
    ]


def generate_launch_description() -> LaunchDescription:
    included = PythonLaunchDescriptionSource(DETECTOR).get_launch_description(LaunchContext())
    own = [
        DeclareLaunchArgument("cameras", description="Namespaces of the cameras, with commas between them."),
        DeclareLaunchArgument(
            "image_topic", default_value="image_raw", description="Where each camera publishes, in its namespace."
        ),
    ]
    shared = [
        argument
        for argument in included.get_launch_arguments()
        if argument.name not in ("cameras", "image_topic", "namespace")
    ]
    return LaunchDescription([*own, *shared, OpaqueFunction(function=detectors)])
