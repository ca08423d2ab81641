"""Tensor functions: warping, displacement algebra, boxes. Conventions are in each docstring and pinned by tests."""

from memwarp_core.geometry.boxes import follow_boxes, match_boxes, propagate_boxes
from memwarp_core.geometry.displacement import compose, resize_displacement, scale_displacement
from memwarp_core.geometry.motion import MOTION_SAMPLES, Motion, MotionSample, extrapolate, predict_displacement
from memwarp_core.geometry.psroi_pool import psroi_pool
from memwarp_core.geometry.warp import splat, warp

__all__ = [
    "MOTION_SAMPLES",
    "Motion",
    "MotionSample",
    "compose",
    "extrapolate",
    "follow_boxes",
    "match_boxes",
    "predict_displacement",
    "propagate_boxes",
    "psroi_pool",
    "resize_displacement",
    "scale_displacement",
    "splat",
    "warp",
]
