"""One detector for one camera: ros2 launch memwarp_ros detector.launch.py image_topic:=/camera/image_raw"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# The parameters that differ most often have an argument of their own. An empty one leaves what params_file says.
PARAMETERS = {
    "model": "A shipped model by name, or the path of a weights file (.safetensors).",
    "device": "auto, cpu, cuda:0, ...",
    "image_transport": "raw or compressed; a compressed image is expected at <image_topic>/compressed.",
}


def detector(context: LaunchContext) -> list[Node]:
    """The node, once the values of the arguments are known."""
    given = {name: value for name in PARAMETERS if (value := LaunchConfiguration(name).perform(context))}
    return [
        Node(
            package="memwarp_ros",
            executable="detector_node",
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                {name: ParameterValue(value, value_type=str) for name, value in given.items()},
            ],
            remappings=[("image", LaunchConfiguration("image_topic"))],
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    # Declared here and not in detector(), where `ros2 launch --show-args` would not see them.
    return LaunchDescription(
        [
            DeclareLaunchArgument("image_topic", default_value="image", description="Where the camera publishes."),
            DeclareLaunchArgument("name", default_value="detector", description="Name of the node."),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([FindPackageShare("memwarp_ros"), "config", "detector.yaml"]),
                description="Parameters of the node; those that it does not name keep their defaults.",
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{description} Empty: as in params_file.")
                for name, description in PARAMETERS.items()
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Lowest level that is logged.",
            ),
            OpaqueFunction(function=detector),
        ]
    )
