"""The moving camera of a scene: a ground robot that looks at the middle of an arena.

World: x forward of the starting heading, y left, z up, metres. Camera (MuJoCo's own convention): x right, y up,
looking along -z.
"""

from dataclasses import dataclass

import numpy as np

MOTIONS = ("still", "pan", "drive", "arc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Swing:
    """amplitude * sin(2 pi (time / period + phase)): all motion of the camera is made of these, so that a clip
    may have any length."""

    amplitude: float
    period_s: float
    phase: float

    def at(self, time_s: float) -> float:
        return float(self.amplitude * np.sin(2.0 * np.pi * (time_s / self.period_s + self.phase)))


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraPath:
    """Where the camera is at each time."""

    motion: str
    height_m: float
    distance_m: float
    """From the start to the middle of the arena."""
    pitch_rad: float
    """Upwards positive."""
    main: Swing
    """Heading in radians for pan, metres forward for drive, angle around the arena in radians for arc."""
    drift: Swing
    """A slow change of heading, radians."""
    shake: tuple[tuple[Swing, Swing], ...]
    """Yaw, pitch and roll, two swings each, radians; empty for a steady mount."""

    def pose(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) and rotation (3, 3) from camera to world coordinates."""
        yaw, pitch, roll = self.drift.at(time_s), self.pitch_rad, 0.0
        x, y = 0.0, 0.0
        if self.motion == "pan":
            yaw += self.main.at(time_s)
        elif self.motion == "drive":
            x = self.main.at(time_s)
        elif self.motion == "arc":
            angle = self.main.at(time_s)
            x = self.distance_m * (1.0 - np.cos(angle))
            y = -self.distance_m * np.sin(angle)
            yaw += angle
        if self.shake:
            yaw += sum(swing.at(time_s) for swing in self.shake[0])
            pitch += sum(swing.at(time_s) for swing in self.shake[1])
            roll += sum(swing.at(time_s) for swing in self.shake[2])
        return np.array([x, y, self.height_m]), _rotation(yaw, pitch, roll)


def draw_camera_path(rng: np.random.Generator) -> CameraPath:
    """A camera path of a random kind. Rotation stays below about 0.85 rad/s: 11 pixels per frame at 20 Hz."""
    motion = str(rng.choice(MOTIONS, p=[0.2, 0.28, 0.27, 0.25]))
    height = rng.uniform(0.35, 1.2)
    distance = rng.uniform(3.0, 4.2)
    amplitude, period = 0.0, 1.0
    if motion == "pan":
        amplitude = rng.uniform(0.12, 0.35)
        period = 2.0 * np.pi * amplitude / rng.uniform(0.2, 0.8)
    elif motion == "drive":
        amplitude = rng.uniform(0.5, 1.0)
        period = 2.0 * np.pi * amplitude / rng.uniform(0.4, 1.6)
    elif motion == "arc":
        amplitude = rng.uniform(0.15, 0.5)
        period = 2.0 * np.pi * amplitude / rng.uniform(0.15, 0.6)
    shake: tuple[tuple[Swing, Swing], ...] = ()
    if rng.uniform() < (0.45 if motion in ("drive", "still") else 0.25):
        strength = rng.uniform(0.3, 1.0)
        shake = tuple(
            (
                Swing(amplitude=strength * size, period_s=1.0 / rng.uniform(1.5, 3.0), phase=rng.uniform()),
                Swing(amplitude=0.4 * strength * size, period_s=1.0 / rng.uniform(4.0, 7.0), phase=rng.uniform()),
            )
            for size in (0.008, 0.01, 0.006)
        )
    return CameraPath(
        motion=motion,
        height_m=height,
        distance_m=distance,
        pitch_rad=float(-np.arctan2(height - 0.45, distance) + rng.uniform(-0.05, 0.05)),
        main=Swing(amplitude=amplitude, period_s=period, phase=rng.uniform()),
        drift=Swing(amplitude=rng.uniform(0.0, 0.05), period_s=rng.uniform(3.0, 6.0), phase=rng.uniform()),
        shake=shake,
    )


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    forward = np.array([np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    up = np.cross(right, forward)
    tilted_right = np.cos(roll) * right + np.sin(roll) * up
    tilted_up = np.cos(roll) * up - np.sin(roll) * right
    return np.stack([tilted_right, tilted_up, -forward], axis=1)
