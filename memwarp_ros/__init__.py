"""Thin ROS 2 adapters around memwarp_core."""

from pkgutil import extend_path

# Python started in the repository's root finds this folder before the installed one. The generated memwarp_ros.msg is
# only in the installed one, so the package spans both. (The installed package has an empty __init__.py, from rosidl.)
__path__ = extend_path(__path__, __name__)
