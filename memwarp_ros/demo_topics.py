"""The topics of the demo, which all of its processes must agree on."""

IMAGE = "/camera/image_raw"
IMAGE_COMPRESSED = f"{IMAGE}/compressed"
CAMERA_INFO = "/camera/camera_info"

DETECTOR = "/detector"
"""The node's name: its private topics are below it."""
DETECTIONS = f"{DETECTOR}/detections"
DETECTIONS_NOW = f"{DETECTOR}/detections_now"
ANTICIPATED = f"{DETECTOR}/anticipated"
LABEL_INFO = f"{DETECTOR}/label_info"
DIAGNOSTICS = "/diagnostics"
