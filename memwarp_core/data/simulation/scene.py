"""One simulated scene: what is in it, how it is lit, and how everything moves.

The physics runs first and leaves a trajectory; rendering only looks states up in it. So a sub-frame for motion blur
or an earlier pose for the displacement field costs no simulation.
"""

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from memwarp_core.data.simulation import textures
from memwarp_core.data.simulation.camera import CameraPath, draw_camera_path
from memwarp_core.data.simulation.config import (
    CLASS_NAMES,
    MAX_OBJECTS,
    SimulationConfig,
    physics_rate_hz,
    steps_per_frame,
)
from memwarp_core.data.simulation.objects import BOX, BUILDERS, CYLINDER, BodyBuilder, BuiltObject
from memwarp_core.data.simulation.textures import hsv

WORLD_GROUP = 0
"""Geom group of everything that is not an object; object k has group k + 1 (MuJoCo has six groups)."""
GRAVITY = 9.81


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """An object of one of the classes."""

    label: int
    """Index into CLASS_NAMES."""
    track_id: int
    """From 1, unique within the clip."""
    group: int
    body: int
    """MuJoCo's id of its root body."""
    built: BuiltObject
    motion: str
    qpos: int
    """Where its seven position numbers start in qpos; its six velocities start at `dof`."""
    dof: int
    swings: tuple[tuple[int, float], ...]
    """(qpos index, sign) of each joint that swings while it walks."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A compiled scene with its trajectory."""

    model: Any
    objects: tuple[SceneObject, ...]
    camera: CameraPath
    shadows: bool
    qpos: np.ndarray
    """(steps, nq): the state at each physics step."""
    camera_position: np.ndarray
    """(steps, 3)."""
    camera_rotation: np.ndarray
    """(steps, 3, 3), from camera to world coordinates."""
    steps_per_frame: int
    first_step: int
    """Step of frame 0; there are some before it, for sub-frames."""
    may_hide: np.ndarray
    """(geoms,) bool: false for the ground and the walls, behind which nothing can be."""

    def step_of_frame(self, frame: int) -> int:
        return self.first_step + frame * self.steps_per_frame


def build_scene(config: SimulationConfig, clip: int) -> Scene:
    """Draw clip `clip` of the data set and run its physics. Depends on the seed and the clip's number alone."""
    rng = np.random.default_rng([config.seed, clip, 0])
    camera = draw_camera_path(rng)
    spec = mujoco.MjSpec()
    spec.option.timestep = 1.0 / physics_rate_hz(config)
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.visual.global_.fovy = vertical_fov_deg(config)
    spec.visual.global_.offwidth = config.width
    spec.visual.global_.offheight = config.height
    # Multisampling doubles the cost of every image in software; `SceneRenderer` softens edges like a lens instead.
    spec.visual.quality.offsamples = 0
    spec.stat.extent = 1.0
    spec.visual.map.znear = 0.05
    spec.visual.map.zfar = 60.0
    spec.visual.map.shadowclip = 7.0
    mount = spec.worldbody.add_body(name="mount", mocap=True)
    mount.add_camera(name="camera", fovy=vertical_fov_deg(config))
    shadows = bool(rng.uniform() < 0.25)
    # Setting up a shadow map takes longer than all else about a scene.
    spec.visual.quality.shadowsize = 1024 if shadows else 0
    _add_surroundings(spec, rng, camera)
    _add_lights(spec, rng, shadows)
    taken = _add_clutter(spec, rng, camera)
    drawn = _draw_objects(spec, rng, config.min_objects)
    model = spec.compile()
    objects = tuple(
        SceneObject(
            label=CLASS_NAMES.index(name),
            track_id=index + 1,
            group=index + 1,
            body=model.body(f"object{index}").id,
            built=built,
            motion=str(rng.choice(built.motions)),
            qpos=int(model.jnt_qposadr[model.body(f"object{index}").jntadr[0]]),
            dof=int(model.jnt_dofadr[model.body(f"object{index}").jntadr[0]]),
            swings=tuple((int(model.joint(joint).qposadr[0]), sign) for joint, sign in built.swinging_joints),
        )
        for index, (name, built) in enumerate(drawn)
    )
    per_frame = steps_per_frame(config)
    margin = per_frame // 2
    steps = 2 * margin + (config.frames - 1) * per_frame + 1
    qpos = _run_physics(model, objects, camera, config, rng, steps, taken)
    poses = [camera.pose(step / physics_rate_hz(config)) for step in range(steps)]
    return Scene(
        model=model,
        objects=objects,
        camera=camera,
        shadows=shadows,
        qpos=qpos,
        camera_position=np.array([position for position, _ in poses]),
        camera_rotation=np.array([rotation for _, rotation in poses]),
        steps_per_frame=per_frame,
        first_step=margin,
        may_hide=np.array(
            [not model.geom(geom).name.startswith(("ground", "world_wall")) for geom in range(model.ngeom)]
        ),
    )


def focal_length(config: SimulationConfig) -> float:
    """In pixels."""
    return float(config.width / 2.0 / np.tan(np.radians(config.horizontal_fov_deg) / 2.0))


def vertical_fov_deg(config: SimulationConfig) -> float:
    return float(2.0 * np.degrees(np.arctan2(config.height / 2.0, focal_length(config))))


def _add_surroundings(spec: Any, rng: np.random.Generator, camera: CameraPath) -> None:
    """The ground, and either walls around the arena or an open sky."""
    world = BodyBuilder(spec=spec, body=spec.worldbody, name="world", group=WORLD_GROUP)
    ground = spec.worldbody.add_geom(
        name="ground", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[20.0, 20.0, 1.0], friction=[0.3, 0.005, 0.0001]
    )
    ground.material = world.material(_ground_texture(rng), shine=0.05)
    repeat = rng.uniform(0.25, 0.5)
    spec.material(ground.material).texrepeat = [repeat * 40.0, repeat * 40.0]
    sky = spec.add_texture(
        name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, width=128, height=768,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
    )  # fmt: skip
    hue = rng.uniform(0.5, 0.65)
    sky.rgb1 = list(hsv(hue, rng.uniform(0.1, 0.5), rng.uniform(0.6, 0.95)))
    sky.rgb2 = list(hsv(rng.uniform(), rng.uniform(0.0, 0.15), rng.uniform(0.6, 0.9)))
    if rng.uniform() < 0.6:
        muted = hsv(rng.uniform(), rng.uniform(0.0, 0.2), rng.uniform(0.45, 0.85))
        wall = world.material(textures.cloudy(rng, muted, rng.uniform(0.04, 0.15), cells=6), cube=True, shine=0.0)
        far = camera.distance_m + rng.uniform(2.0, 4.5)
        side = rng.uniform(3.5, 6.0)
        # High enough that nothing is thrown over it, which `SceneRenderer.boxes` relies on.
        height = rng.uniform(1.8, 3.5)
        for pos, half in (
            ([far, 0.0, height / 2], [0.1, side + 1.0, height / 2]),
            ([far / 2 - 1, side, height / 2], [far / 2 + 1.0, 0.1, height / 2]),
            ([far / 2 - 1, -side, height / 2], [far / 2 + 1.0, 0.1, height / 2]),
        ):
            spec.worldbody.add_geom(
                name=world.next_name("wall"), type=BOX, pos=pos, size=half, material=wall, group=WORLD_GROUP
            )


def _ground_texture(rng: np.random.Generator) -> np.ndarray:
    kind = rng.choice(("checker", "concrete", "grass", "tiles", "earth"))
    hue = rng.uniform()
    if kind == "checker":
        light = hsv(hue, rng.uniform(0.0, 0.25), rng.uniform(0.55, 0.85))
        dark = hsv(hue, rng.uniform(0.0, 0.3), rng.uniform(0.3, 0.5))
        return textures.checker(rng, light, dark, cells=int(rng.choice([2, 4])))
    if kind == "grass":
        green = hsv(rng.uniform(0.22, 0.32), rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.5))
        return textures.cloudy(rng, green, rng.uniform(0.15, 0.3), cells=16)
    if kind == "tiles":
        color = hsv(hue, rng.uniform(0.0, 0.2), rng.uniform(0.5, 0.8))
        return textures.tiles(rng, color, (0.3, 0.3, 0.3), cells=int(rng.choice([2, 4])))
    if kind == "earth":
        brown = hsv(rng.uniform(0.06, 0.12), rng.uniform(0.2, 0.4), rng.uniform(0.35, 0.6))
        return textures.cloudy(rng, brown, rng.uniform(0.1, 0.2), cells=12)
    return textures.cloudy(rng, hsv(0.0, 0.0, rng.uniform(0.4, 0.75)), rng.uniform(0.08, 0.18), cells=12)


def _add_lights(spec: Any, rng: np.random.Generator, shadows: bool) -> None:
    warmth = rng.uniform(-0.06, 0.06)
    tint = np.array([1.0 + warmth, 1.0, 1.0 - warmth])
    head = rng.uniform(0.25, 0.45)
    spec.visual.headlight.ambient = list(tint * rng.uniform(0.25, 0.4))
    spec.visual.headlight.diffuse = list(tint * head)
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]
    angle = rng.uniform(0.0, 2.0 * np.pi)
    tilt = rng.uniform(0.3, 1.0)
    direction = [np.cos(angle) * np.sin(tilt), np.sin(angle) * np.sin(tilt), -np.cos(tilt)]
    light = spec.worldbody.add_light(name="sun", castshadow=shadows)
    light.type = mujoco.mjtLightType.mjLIGHT_DIRECTIONAL
    light.dir = direction
    light.pos = [3.0 - 5.0 * direction[0], -5.0 * direction[1], -5.0 * direction[2]]
    light.diffuse = list(tint * rng.uniform(0.3, 0.6))
    light.specular = [0.2, 0.2, 0.2]


def _add_clutter(spec: Any, rng: np.random.Generator, camera: CameraPath) -> list[tuple[float, float, float]]:
    """Plain slabs and poles in muted colours; returns (x, y, radius) of the places that they take."""
    world = BodyBuilder(spec=spec, body=spec.worldbody, name="clutter", group=WORLD_GROUP)
    taken: list[tuple[float, float, float]] = []
    for index in range(int(rng.integers(2, 6))):
        color = hsv(rng.uniform(), rng.uniform(0.0, 0.22), rng.uniform(0.25, 0.8))
        # The first two may stand among the objects and hide them; the others stay behind.
        depth = rng.uniform(0.45, 0.95) if index < 2 else rng.uniform(1.2, 1.9)
        x = camera.distance_m * depth
        y = rng.uniform(-0.62, 0.62) * x
        if rng.uniform() < 0.5:
            half = [rng.uniform(0.05, 0.12), rng.uniform(0.15, 0.5), rng.uniform(0.12, 0.35 if index < 2 else 0.8)]
            turn = rng.uniform(-0.7, 0.7)
            kind, quat, radius = BOX, [np.cos(turn / 2), 0.0, 0.0, np.sin(turn / 2)], half[1]
        else:
            radius = rng.uniform(0.03, 0.07)
            half = [radius, rng.uniform(0.5, 1.3), 0.0]
            kind, quat = CYLINDER, [1.0, 0.0, 0.0, 0.0]
        look = textures.cloudy(rng, color, 0.1) if rng.uniform() < 0.5 else color
        spec.worldbody.add_geom(
            name=f"clutter{index}", type=kind, size=half, pos=[x, y, half[2] if kind == BOX else half[1]],
            quat=quat, material=world.material(look, cube=True, shine=0.1), group=WORLD_GROUP,
        )  # fmt: skip
        taken.append((x, y, radius))
    return taken


def _draw_objects(spec: Any, rng: np.random.Generator, min_objects: int) -> list[tuple[str, BuiltObject]]:
    count = int(rng.choice(np.arange(MAX_OBJECTS) + 1, p=[0.22, 0.38, 0.25, 0.12, 0.03]))
    drawn = []
    for index in range(max(count, min_objects)):
        name = CLASS_NAMES[int(rng.integers(len(CLASS_NAMES)))]
        # Far below the ground until the first launch gives it a place.
        body = spec.worldbody.add_body(name=f"object{index}", pos=[0.0, 0.0, -10.0 - 5.0 * index])
        body.add_freejoint()
        builder = BodyBuilder(spec=spec, body=body, name=f"object{index}", group=index + 1)
        drawn.append((name, BUILDERS[name](builder, rng)))
    return drawn


def _run_physics(
    model: Any,
    objects: tuple[SceneObject, ...],
    camera: CameraPath,
    config: SimulationConfig,
    rng: np.random.Generator,
    steps: int,
    taken: list[tuple[float, float, float]],
) -> np.ndarray:
    data = mujoco.MjData(model)
    mujoco.mj_resetData(model, data)
    rate_hz = physics_rate_hz(config)
    duration = steps / rate_hz
    launcher = Launcher(camera=camera, config=config, rng=rng, obstacles=taken)
    next_event = np.zeros(len(objects))
    for index, item in enumerate(objects):
        launcher.start(data, item, first=True, arrival_s=rng.uniform(0.25, 0.75) * min(duration, 1.6))
        next_event[index] = rng.uniform(1.5, 3.0)
    mujoco.mj_forward(model, data)
    qpos = np.empty((steps, model.nq))
    for step in range(steps):
        time = step / rate_hz
        if step % 20 == 0:
            for index, item in enumerate(objects):
                if time >= next_event[index]:
                    launcher.renew(data, item, time)
                    next_event[index] = time + rng.uniform(1.2, 2.6)
        _swing_limbs(data, objects, time)
        qpos[step] = data.qpos
        mujoco.mj_step(model, data)
    if not np.isfinite(qpos).all():
        raise AssertionError("the physics of a scene diverged")
    return qpos


def _swing_limbs(data: Any, objects: tuple[SceneObject, ...], time: float) -> None:
    for item in objects:
        if not item.swings:
            continue
        speed = float(np.hypot(*data.qvel[item.dof : item.dof + 2]))
        angle = min(0.55, 0.6 * speed) * np.sin(2.0 * np.pi * 1.6 * time + item.track_id)
        for address, sign in item.swings:
            data.qpos[address] = sign * angle
            data.qvel[item.dof + 6 + (address - item.qpos - 7)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Launcher:
    """Puts objects into motion so that they pass through the camera's view."""

    camera: CameraPath
    config: SimulationConfig
    rng: np.random.Generator
    obstacles: list[tuple[float, float, float]]
    """(x, y, radius) of what stands in the arena; objects at rest are added."""

    def start(self, data: Any, item: SceneObject, *, first: bool, arrival_s: float, now_s: float = 0.0) -> None:
        """Give the object a place and a velocity, such that it is at a point in view after `arrival_s`."""
        rng = self.rng
        target = self._point_in_view(item, now_s + arrival_s)
        heading = rng.uniform(-np.pi, np.pi)
        position, velocity, spin = target.copy(), np.zeros(3), np.zeros(3)
        quat = _about_z(heading)
        position[2] = item.built.rest_height_m + 0.005
        if item.motion == "rest":
            if not first:
                # It comes back by falling from above the view.
                position[2] += 2.2
        elif item.motion == "thrown":
            position, velocity = self._throw(item, target, arrival_s)
            spin = rng.normal(0.0, 3.5, 3)
            quat = _random_rotation(rng)
        elif item.motion == "falling":
            fall = min(arrival_s, 0.45)
            velocity[:2] = rng.normal(0.0, 0.4, 2)
            position[:2] -= velocity[:2] * fall
            position[2] = item.built.radius_m + rng.uniform(0.1, 0.6) + 0.5 * GRAVITY * fall**2
            spin = rng.normal(0.0, 2.0, 3)
            quat = _random_rotation(rng)
        else:
            speed = {"pushed": (0.8, 2.0), "rolling": (0.6, 2.4), "walking": (0.3, 1.2)}[item.motion]
            heading = self._sideways_heading()
            magnitude = rng.uniform(*speed)
            velocity[:2] = magnitude * np.array([np.cos(heading), np.sin(heading)])
            lead = arrival_s if item.motion != "pushed" else arrival_s * 0.5
            position[:2] -= velocity[:2] * lead
            quat = _about_z(heading if item.motion == "walking" else rng.uniform(-np.pi, np.pi))
            if item.motion == "rolling" and item.built.rolling_quat is not None:
                position[2] = item.built.rolling_radius_m + 0.005
                quat = _product(_about_z(heading), item.built.rolling_quat)
                rate = magnitude / item.built.rolling_radius_m
                spin = rate * np.array([-np.sin(heading), np.cos(heading), 0.0])
        data.qpos[item.qpos : item.qpos + 3] = position
        data.qpos[item.qpos + 3 : item.qpos + 7] = quat
        data.qvel[item.dof : item.dof + 3] = velocity
        # Angular velocity of a free joint is in body coordinates.
        data.qvel[item.dof + 3 : item.dof + 6] = _rotate_into(quat, spin)
        self.obstacles.append((float(position[0]), float(position[1]), item.built.radius_m * 0.7))

    def renew(self, data: Any, item: SceneObject, now_s: float) -> None:
        """Bring an object that left the view back into it; give one that lies still in view a kick."""
        position = data.qpos[item.qpos : item.qpos + 3]
        if not self._may_be_seen(position, item.built.radius_m, now_s):
            self._start_outside(data, item, now_s)
            return
        if np.linalg.norm(data.qvel[item.dof : item.dof + 3]) > 0.3:
            return
        facing, up = _turned(data.qpos[item.qpos + 3 : item.qpos + 7])
        if "walking" in item.built.motions and up[2] > 0.7:
            # What stands in its way may be in front or behind; it can go both ways.
            way = 1.0 if self.rng.uniform() < 0.5 else -1.0
            data.qvel[item.dof : item.dof + 2] = way * self.rng.uniform(0.4, 1.2) * facing[:2]
            return
        center = self._point_in_view(item, now_s + 0.8)
        away = center[:2] - position[:2]
        away = away / max(float(np.linalg.norm(away)), 1e-6)
        data.qvel[item.dof : item.dof + 2] += away * self.rng.uniform(0.8, 1.8)
        data.qvel[item.dof + 2] += self.rng.uniform(1.0, 3.2)
        data.qvel[item.dof + 3 : item.dof + 6] += self.rng.normal(0.0, 2.0, 3)

    def _start_outside(self, data: Any, item: SceneObject, now_s: float) -> None:
        """Try launches until one begins where the camera cannot see it, so that nothing appears out of nowhere."""
        saved = (data.qpos.copy(), data.qvel.copy())
        for _ in range(12):
            self.start(data, item, first=False, arrival_s=self.rng.uniform(0.6, 1.4), now_s=now_s)
            self.obstacles.pop()
            place = data.qpos[item.qpos : item.qpos + 3]
            if not self._may_be_seen(place, item.built.radius_m, now_s):
                return
        data.qpos[:], data.qvel[:] = saved

    def _point_in_view(self, item: SceneObject, time_s: float) -> np.ndarray:
        """A point on the ground that the camera sees at that time, where possible away from obstacles."""
        position, rotation = self.camera.pose(time_s)
        forward, right = -rotation[:, 2], rotation[:, 0]
        forward = forward * [1.0, 1.0, 0.0] / np.hypot(forward[0], forward[1])
        half_width = np.tan(np.radians(self.config.horizontal_fov_deg / 2.0))
        big = item.built.radius_m > 0.7
        point = position
        for _ in range(20):
            depth = self.rng.uniform(3.0 if big else 1.9, 5.2 if big else 4.4)
            side = self.rng.uniform(-0.78, 0.78) * half_width * depth
            point = position + depth * forward + side * right
            radius = min(item.built.radius_m, 0.5)
            if all(np.hypot(point[0] - x, point[1] - y) > radius + r for x, y, r in self.obstacles):
                break
        return np.array([point[0], point[1], 0.0])

    def _throw(self, item: SceneObject, target: np.ndarray, arrival_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Place and velocity now, so that free flight passes a point above `target` after `arrival_s`."""
        height = self.rng.uniform(0.35, 1.1)
        passing = np.zeros(3)
        heading = self._sideways_heading()
        passing[:2] = self.rng.uniform(0.8, 3.2) * np.array([np.cos(heading), np.sin(heading)])
        passing[2] = self.rng.uniform(-1.2, 1.2)
        flight = arrival_s
        while True:
            start_height = height - (passing[2] + GRAVITY * flight) * flight + 0.5 * GRAVITY * flight**2
            if start_height > min(item.built.radius_m, 0.5) + 0.02:
                break
            flight *= 0.85
            if flight < 0.05:
                flight, start_height = 0.0, height + item.built.radius_m
                break
        place = target - passing * flight
        place[2] = start_height
        return place, np.array([passing[0], passing[1], passing[2] + GRAVITY * flight])

    def _sideways_heading(self) -> float:
        """Mostly across the view, sometimes towards the camera or away from it."""
        side = 1.0 if self.rng.uniform() < 0.5 else -1.0
        return float(side * np.pi / 2.0 + self.rng.normal(0.0, 0.5))

    def _may_be_seen(self, position: np.ndarray, radius: float, time_s: float) -> bool:
        """Whether a sphere reaches into the camera's view at that time."""
        place, rotation = self.camera.pose(time_s)
        x, y, z = rotation.T @ (position - place)
        depth = -z
        if depth < -radius:
            return False
        focal = focal_length(self.config)
        for offset, half in ((x, self.config.width / 2.0), (y, self.config.height / 2.0)):
            angle = np.arctan2(half, focal)
            if abs(offset) * np.cos(angle) - depth * np.sin(angle) > radius:
                return False
        return True


def _about_z(angle: float) -> np.ndarray:
    return np.array([np.cos(angle / 2.0), 0.0, 0.0, np.sin(angle / 2.0)])


def _random_rotation(rng: np.random.Generator) -> np.ndarray:
    quat = rng.normal(size=4)
    return np.asarray(quat / np.linalg.norm(quat))


def _turned(quat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The x axis and the z axis of a body with that orientation, in the world."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quat)
    return matrix[0::3], matrix[2::3]


def _product(first: np.ndarray, second: tuple[float, float, float, float]) -> np.ndarray:
    result = np.zeros(4)
    mujoco.mju_mulQuat(result, first, np.array(second))
    return result


def _rotate_into(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A world vector in the coordinates of a body with that orientation."""
    inverse, result = np.zeros(4), np.zeros(3)
    mujoco.mju_negQuat(inverse, quat)
    mujoco.mju_rotVecQuat(result, vector, inverse)
    return result
