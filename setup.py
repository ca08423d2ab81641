"""The pip package `memwarp`: the detector and its command, without ROS. The ROS package is CMakeLists.txt's."""

from setuptools import find_packages, setup

EXTRAS = {
    "simulate": ["mujoco>=3.2"],
    "train": ["lightning>=2.4", "filelock"],
    "export": ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"],
    # The newest one is made for the newest CUDA; tensorrt-cu12 is for torch with CUDA 12.
    "tensorrt": ["tensorrt>=8.6,<12", "onnx>=1.16"],
    "evaluate": ["pycocotools>=2.0.8", "matplotlib>=3.8", "jinja2"],
}
TEST = ["pytest>=8", "pytest-timeout", "pytest-xdist", "hypothesis", "ruff", "mypy", "mcap"]

setup(
    name="memwarp",
    version="0.1.0",
    description="Object detection in camera streams with a feature memory that is warped along the motion of the scene",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["memwarp_core", "memwarp_core.*"]),
    package_data={"memwarp_core": ["**/*.safetensors", "**/*.json", "**/*.yaml", "**/*.md", "**/*.html"]},
    install_requires=[
        # torch and torchvision come in pairs; each torchvision names the one torch that fits.
        "torch>=2.7",
        "torchvision>=0.22",
        "numpy",
        "opencv-python-headless>=4.8",
        "safetensors>=0.4",
        "pydantic>=2.5",
        "pyyaml",
        "rosbags>=0.11",
        "typer>=0.12",
        "rich",
    ],
    extras_require={
        **EXTRAS,
        "test": TEST,
        "all": sorted({one for name, extra in EXTRAS.items() if name != "tensorrt" for one in extra} | set(TEST)),
    },
    entry_points={"console_scripts": ["memwarp = memwarp_core.cli:main"]},
)
