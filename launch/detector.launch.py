"""One detector node: ros2 launch memwarp_ros detector.launch.py image_topic:=/camera/image_raw"""

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def as_text(value: str) -> ParameterValue:
    return ParameterValue(value, value_type=str)  # otherwise a model that is called 1 would be a number


def as_numbers(value: str) -> list[float]:
    return [float(number) for number in value.strip("[] ").split(",")]


def as_words(value: str) -> list[str]:
    return [word.strip() for word in value.strip("[] ").split(",")]


def as_flag(value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, got {value!r}.")
    return value.lower() == "true"


# The parameters that differ most often have an argument of their own: its name, the parameter's name, what makes
# a value of its text, a description. An empty one leaves what params_file says.
PARAMETERS = [
    ("model", "model", as_text, "A shipped model by name, or the path of a weights file (.safetensors)."),
    (
        "backend",
        "backend",
        as_text,
        "torch, cuda_graph or compiled; or onnx or tensorrt, with what `memwarp export` wrote as model.",
    ),
    ("device", "device", as_text, "auto, cpu, cuda:0, ..."),
    (
        "image_topics",
        "image_topics",
        as_words,
        "Several cameras in this node, as in [/front/image_raw, /rear/image_raw].",
    ),
    ("camera_names", "camera_names", as_words, "A name for each of image_topics, as in [front, rear]."),
    (
        "image_transport",
        "image_transport",
        as_text,
        "raw, or compressed: at <image_topic>/compressed.",
    ),
    ("image_qos", "image_qos", as_text, "A preset: sensor_data, reliable, system_default, ..., see docs/ros.md."),
    ("score_threshold", "score_threshold", float, "Detections with a lower score are not published."),
    ("horizons", "horizons_s", as_numbers, "Seconds after the image to anticipate, as in [0.1, 0.2]."),
    ("autostart", "autostart", as_flag, "false where something else configures and activates the node."),
    ("use_sim_time", "use_sim_time", as_flag, "true where the time comes from /clock, as with a bag."),
]


def detector(context: LaunchContext) -> list[Node]:
    """The node, once the values of the arguments are known."""
    given = {
        parameter: to_value(value)
        for argument, parameter, to_value, _ in PARAMETERS
        if (value := LaunchConfiguration(argument).perform(context))
    }
    return [
        Node(
            package="memwarp_ros",
            executable=LaunchConfiguration("executable"),
            name=LaunchConfiguration("name"),
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("params_file"), given],
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
            DeclareLaunchArgument(
                "executable",
                default_value="detector_node",
                choices=["detector_node", "fast_strong_node"],
                description="What runs; fast_strong.launch.py is for the second one.",
            ),
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([FindPackageShare("memwarp_ros"), "config", "detector.yaml"]),
                description="Parameters of the node; those that it does not name keep their defaults.",
            ),
            *(
                DeclareLaunchArgument(name, default_value="", description=f"{description} Empty: as in params_file.")
                for name, _, _, description in PARAMETERS
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
