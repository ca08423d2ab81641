"""A bag, the detector, and how good it was: ros2 launch memwarp_ros replay_evaluation.launch.py bag:=PATH

All arguments of detector.launch.py can be given as well.
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

DETECTOR = str(Path(__file__).with_name("detector.launch.py"))
PROFILE = PathJoinSubstitution([FindPackageShare("memwarp_ros"), "config", "fastdds.xml"])


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="A recording of a camera: bag, or a folder of bags."),
            DeclareLaunchArgument("output", default_value="out/replay_ros", description="Folder for the report."),
            DeclareLaunchArgument(
                "image_topic", default_value="/camera/image_raw", description="Its images, without /compressed."
            ),
            DeclareLaunchArgument(
                "image_transport",
                default_value="compressed",
                choices=["compressed", "raw"],
                description="As in the recording.",
            ),
            DeclareLaunchArgument(
                "ground_truth",
                default_value="",
                description="A topic of Detection2DArray in the bag, or a CocoVID file. Empty: /ground_truth.",
            ),
            DeclareLaunchArgument(
                "player",
                default_value="own",
                choices=["own", "external"],
                description="external: ros2 bag play, with the bag's time on /clock.",
            ),
            # Average precision needs less sure boxes, too.
            DeclareLaunchArgument(
                "score_threshold", default_value="0.05", description="Detections with a lower score are not scored."
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value=PythonExpression(["'", LaunchConfiguration("player"), "' == 'external'"]),
                description="Whether time comes from the recording.",
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(DETECTOR)),
            Node(
                package="memwarp_ros",
                executable="replay_evaluation",
                namespace=LaunchConfiguration("namespace"),
                arguments=[
                    LaunchConfiguration("bag"),
                    "--output",
                    LaunchConfiguration("output"),
                    "--topic",
                    LaunchConfiguration("image_topic"),
                    "--transport",
                    LaunchConfiguration("image_transport"),
                    "--ground-truth",
                    LaunchConfiguration("ground_truth"),
                    "--player",
                    LaunchConfiguration("player"),
                    "--node",
                    LaunchConfiguration("name"),
                ],
                # Raw images are lost on the way without it; config/fastdds.xml says why.
                additional_env={"FASTRTPS_DEFAULT_PROFILES_FILE": PROFILE, "FASTDDS_DEFAULT_PROFILES_FILE": PROFILE},
                output="screen",
                on_exit=Shutdown(),
            ),
        ]
    )
