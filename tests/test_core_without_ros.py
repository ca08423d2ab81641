"""memwarp_core works where ROS is not installed."""

import subprocess
import sys

# In a fresh interpreter: nothing of ROS can be imported, everything of memwarp_core must be.
PROGRAM = """
import importlib, pkgutil, sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        ros = top.startswith(("rcl", "ament_", "rosidl_", "memwarp_ros"))
        if ros or top.endswith(("_msgs", "_srvs", "_interfaces")):
            raise ModuleNotFoundError(f"{name}: there is no ROS here")

sys.meta_path.insert(0, NoRos())
try:
    import rclpy
except ModuleNotFoundError:
    pass
else:
    sys.exit("this test does not keep ROS away")

import memwarp_core
names = [module.name for module in pkgutil.walk_packages(memwarp_core.__path__, "memwarp_core.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_of_the_core_imports_without_ros() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 10
