"""A recording, the detector and a window: ros2 launch memwarp_ros demo.launch.py

Needs rosbag2 with its mcap storage, and RViz for the window (view:=false does without).
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, IncludeLaunchDescription
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

DETECTOR = str(Path(__file__).with_name("detector.launch.py"))
SHARE = FindPackageShare("memwarp_ros")


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", default_value=PathJoinSubstitution([SHARE, "sample"]), description="A recording of a camera."
            ),
            DeclareLaunchArgument(
                "image_topic", default_value="/camera/image_raw", description="Its images, without /compressed."
            ),
            DeclareLaunchArgument(
                "image_transport", default_value="compressed", description="compressed or raw, as in the recording."
            ),
            DeclareLaunchArgument(
                "view",
                default_value="true",
                choices=["true", "false"],
                description="Whether RViz shows the detections.",
            ),
            # The recording's time is the time of all: stamps of long ago would be taken for very late images.
            DeclareLaunchArgument(
                "use_sim_time", default_value="true", description="Whether time comes from the recording."
            ),
            ExecuteProcess(
                cmd=["ros2", "bag", "play", "--loop", "--clock", "100", LaunchConfiguration("bag")],
                # Raw images are lost on the way without it; config/fastdds.xml says why.
                additional_env={
                    "FASTRTPS_DEFAULT_PROFILES_FILE": PathJoinSubstitution([SHARE, "config", "fastdds.xml"]),
                    "FASTDDS_DEFAULT_PROFILES_FILE": PathJoinSubstitution([SHARE, "config", "fastdds.xml"]),
                },
                output="screen",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(DETECTOR)),
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", PathJoinSubstitution([SHARE, "config", "detector.rviz"])],
                condition=IfCondition(LaunchConfiguration("view")),
            ),
        ]
    )
