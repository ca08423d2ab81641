"""Several cameras: ros2 launch memwarp_ros multi_camera.launch.py cameras:=front,rear

A camera is a namespace: its images come from /front/image_raw, or from /front/<image_topic> where that is given. By
default one node serves all of them: one model in memory, and one pass through it for images that wait together. With
processes:=per_camera each has a node of its own, /front/detector and so on, that goes on when another one ends.
The other arguments are those of detector.launch.py and hold for every camera.
"""

from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

DETECTOR = str(Path(__file__).with_name("detector.launch.py"))


def include(arguments: dict[str, str]) -> IncludeLaunchDescription:
    return IncludeLaunchDescription(PythonLaunchDescriptionSource(DETECTOR), launch_arguments=arguments.items())


def detectors(context: LaunchContext) -> list[IncludeLaunchDescription]:
    """One for all cameras or one each, once their names are known."""
    cameras = [camera.strip("/ ") for camera in LaunchConfiguration("cameras").perform(context).split(",")]
    if not all(cameras) or len(set(cameras)) < len(cameras):
        raise RuntimeError(f"cameras must be different names with commas between them, got {cameras}.")
    if LaunchConfiguration("processes").perform(context) == "per_camera":
        return [include({"namespace": camera}) for camera in cameras]
    image_topic = LaunchConfiguration("image_topic").perform(context)
    topics = ", ".join(f"{camera}/{image_topic}" for camera in cameras)
    names = ", ".join(camera.replace("/", "_") for camera in cameras)
    return [include({"image_topics": topics, "camera_names": names})]


def generate_launch_description() -> LaunchDescription:
    included = PythonLaunchDescriptionSource(DETECTOR).get_launch_description(LaunchContext())
    own = [
        DeclareLaunchArgument("cameras", description="Namespaces of the cameras, with commas between them."),
        DeclareLaunchArgument(
            "image_topic", default_value="image_raw", description="Where each camera publishes, in its namespace."
        ),
        DeclareLaunchArgument(
            "processes",
            default_value="one",
            choices=["one", "per_camera"],
            description="One node for all cameras, or one for each.",
        ),
    ]
    shared = [
        argument
        for argument in included.get_launch_arguments()
        if argument.name not in ("cameras", "image_topic", "image_topics", "camera_names", "namespace")
    ]
    return LaunchDescription([*own, *shared, OpaqueFunction(function=detectors)])
