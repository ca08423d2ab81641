"""Renders one clip: images with faults, boxes, displacement fields."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import mujoco
import numpy as np

from memwarp_core.data.simulation.canvas import Canvas
from memwarp_core.data.simulation.config import MAX_OBJECTS, SimulationConfig
from memwarp_core.data.simulation.faults import Fault, apply_fault, draw_faults
from memwarp_core.data.simulation.ground_truth import View, box_of_mask, displacement_between
from memwarp_core.data.simulation.scene import (
    WORLD_GROUP,
    Scene,
    SceneObject,
    build_scene,
    focal_length,
)
from memwarp_core.types import Frame

LENS_SIGMA = 0.5
"""Blur of a sharp image in pixels."""
SUB_FRAMES = 5
"""Images averaged for a motion-blurred frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedFrame:
    """A frame with all of its ground truth. The stamp, the boxes and the field belong to the middle of the exposure."""

    frame: Frame
    visible_fractions: np.ndarray
    """(N,) float, per box: the share of the object's whole silhouette that can be seen."""
    displacement: np.ndarray | None
    """(H, W, 2) float32 to the previous frame; None for the first frame and where none was asked for."""
    valid: np.ndarray | None
    """(H, W) bool, where the displacement holds."""


def render_clip(config: SimulationConfig, clip: int) -> Iterator[RenderedFrame]:
    """The frames of clip `clip`, in order."""
    scene = build_scene(config, clip)
    rng = np.random.default_rng([config.seed, clip, 1])
    faults = draw_faults(rng, config.frames, config.degraded_fraction, config.fault_strength)
    with SceneRenderer(scene, config) as renderer:
        previous: View | None = None
        for index, fault in enumerate(faults):
            step = scene.step_of_frame(index)
            renderer.pose(step)
            clean, depth = renderer.color_and_depth()
            geoms = renderer.geoms()
            boxes, labels, tracks, fractions = renderer.boxes(geoms)
            displacement, valid = None, None
            if config.displacement:
                current = renderer.view(geoms, depth)
                if previous is not None:
                    displacement, valid = displacement_between(previous, current, focal_length(config))
                previous = current
            image = renderer.exposed(step, fault) if fault.exposure > 0 else clean
            yield RenderedFrame(
                frame=Frame(
                    image=apply_fault(image, fault, rng),
                    stamp_ns=index * 1_000_000_000 // config.rate_hz,
                    boxes_xyxy=boxes,
                    labels=labels,
                    track_ids=tracks,
                    degradation=fault.kind,
                ),
                visible_fractions=fractions,
                displacement=displacement,
                valid=valid,
            )


class SceneRenderer:
    """Draws a scene at steps of its trajectory; holds an OpenGL context, so use it in a with statement."""

    def __init__(self, scene: Scene, config: SimulationConfig) -> None:
        self._scene = scene
        self._config = config
        self._data = mujoco.MjData(scene.model)
        self._canvas = Canvas(scene.model, config.width, config.height, shadows=scene.shadows)
        self._everything = mujoco.MjvOption()
        self._everything.geomgroup[:] = 1
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = scene.model.camera("camera").id
        self._step = 0

    def __enter__(self) -> "SceneRenderer":
        return self

    def __exit__(self, *_: object) -> None:
        self._canvas.close()

    def pose(self, step: int) -> None:
        """Bring the scene into its state at a physics step."""
        self._step = step
        self._data.qpos[:] = self._scene.qpos[step]
        self._data.mocap_pos[0] = self._scene.camera_position[step]
        mujoco.mju_mat2Quat(self._data.mocap_quat[0], self._scene.camera_rotation[step].reshape(-1))
        mujoco.mj_kinematics(self._scene.model, self._data)
        mujoco.mj_comPos(self._scene.model, self._data)
        mujoco.mj_camlight(self._scene.model, self._data)
        self._canvas.look(self._data, self._camera, self._everything)

    def color_and_depth(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB, edges softened a little, as a lens does; and (H, W) float32 depth in metres."""
        color, depth = self._canvas.color_and_depth()
        return cv2.GaussianBlur(color, (3, 3), LENS_SIGMA), depth

    def exposed(self, step: int, fault: Fault) -> np.ndarray:
        """The mean of sub-frames spread over the exposure, whose middle is `step`."""
        reach = fault.exposure * self._scene.steps_per_frame / 2.0
        total = np.zeros((self._config.height, self._config.width, 3), np.float32)
        for offset in np.linspace(-reach, reach, SUB_FRAMES):
            self.pose(step + round(float(offset)))
            total += self.color_and_depth()[0]
        return np.asarray((total / SUB_FRAMES + 0.5).astype(np.uint8))

    def geoms(self) -> np.ndarray:
        """(H, W) int32, the geom seen in each pixel, -1 for the sky."""
        return self._canvas.geoms()

    def view(self, geoms: np.ndarray, depth: np.ndarray) -> View:
        """Depth, bodies and poses of the current state."""
        model, data = self._scene.model, self._data
        return View(
            depth=depth,
            body=np.where(geoms >= 0, model.geom_bodyid[geoms], -1),
            camera_position=self._scene.camera_position[self._step],
            camera_rotation=self._scene.camera_rotation[self._step],
            body_positions=data.xpos.copy(),
            body_rotations=data.xmat.reshape(-1, 3, 3).copy(),
        )

    def boxes(self, geoms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (N, 4), labels (N,), track ids (N,) and visible fractions (N,) of the objects in view."""
        model = self._scene.model
        root = np.where(geoms >= 0, model.body_rootid[model.geom_bodyid[geoms]], 0)
        found: list[tuple[tuple[float, float, float, float], int, int, float]] = []
        for item in self._scene.objects:
            mask = root == item.body
            box = box_of_mask(mask)
            if box is None or min(box[2] - box[0], box[3] - box[1]) < self._config.min_box_size:
                continue
            fraction = 1.0
            if self._may_be_cut(mask, geoms):
                fraction = min(1.0, float(mask.sum()) / self._whole_silhouette(item))
            if fraction >= self._config.min_visible_fraction:
                found.append((box, item.label, item.track_id, fraction))
        return (
            np.array([box for box, *_ in found], np.float32).reshape(-1, 4),
            np.array([label for _, label, *_ in found], np.int64),
            np.array([track for *_, track, _ in found], np.int64),
            np.array([fraction for *_, fraction in found], np.float64),
        )

    def _may_be_cut(self, mask: np.ndarray, geoms: np.ndarray) -> bool:
        """Whether the object touches the image border or something that can hide it; mostly it does not, and that
        saves drawing it alone."""
        if mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any():
            return True
        around = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~mask
        neighbours = geoms[around]
        return bool(self._scene.may_hide[neighbours[neighbours >= 0]].any())

    def _whole_silhouette(self, item: SceneObject) -> float:
        """Pixels that the object would cover if nothing hid it and the image had no border.

        It is drawn alone by a camera at the same place that is turned towards it; away from the optical axis a
        silhouette is larger in the image by 1 / cos^3 of the angle. Drawn in an image of half the size, it is right
        to about one pixel of that all around.
        """
        position = self._scene.camera_position[self._step]
        center = self._middle(item)
        toward = center - position
        distance = float(np.linalg.norm(toward))
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.lookat[:] = center
        camera.distance = distance
        camera.azimuth = np.degrees(np.arctan2(toward[1], toward[0]))
        camera.elevation = np.degrees(np.arcsin(toward[2] / distance))
        alone = mujoco.MjvOption()
        alone.geomgroup[:] = 0
        alone.geomgroup[item.group] = 1
        self._canvas.look(self._data, camera, alone)
        pixels = self._canvas.drawn_area()
        self._canvas.look(self._data, self._camera, self._everything)
        optical_axis = -self._scene.camera_rotation[self._step][:, 2]
        cosine = max(float(toward @ optical_axis) / distance, 0.3)
        return max(pixels, 1) / cosine**3

    def _middle(self, item: SceneObject) -> np.ndarray:
        """The middle of the object's geoms in the world."""
        model = self._scene.model
        mine = (model.body_rootid[model.geom_bodyid] == item.body) & (model.geom_rgba[:, 3] > 0)
        places = self._data.geom_xpos[mine]
        return np.asarray((places.min(axis=0) + places.max(axis=0)) / 2.0)


assert mujoco.mjNGROUP > WORLD_GROUP + MAX_OBJECTS
