"""The object classes of the simulated scenes, built from primitives and surfaces of revolution.

Each builder draws size and colours around what is typical for its class, so that a person names the object at a
glance and colour is a hint rather than the answer. Bodies are z up; sizes are in metres, masses in kilograms.
Visual geoms neither collide nor weigh anything; a few transparent primitives do both.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np

from memwarp_core.data.simulation import textures
from memwarp_core.data.simulation.textures import Color, hsv, vary

BOX = mujoco.mjtGeom.mjGEOM_BOX
SPHERE = mujoco.mjtGeom.mjGEOM_SPHERE
CYLINDER = mujoco.mjtGeom.mjGEOM_CYLINDER
CAPSULE = mujoco.mjtGeom.mjGEOM_CAPSULE
ELLIPSOID = mujoco.mjtGeom.mjGEOM_ELLIPSOID

ALONG_Y = (0.7071067811865476, 0.7071067811865476, 0.0, 0.0)
"""Quaternion (w, x, y, z) that turns an axis along z into one along y."""
ALONG_X = (0.7071067811865476, 0.0, 0.7071067811865476, 0.0)

Look = Color | np.ndarray
"""A plain colour, or a (H, W, 3) uint8 texture."""


@dataclass(frozen=True, kw_only=True)
class BuiltObject:
    """What the scene has to know of a finished object."""

    rest_height_m: float
    """Height of the body's origin above the ground when the object stands upright."""
    radius_m: float
    """Radius of a sphere around the body's origin that holds the object."""
    motions: tuple[str, ...]
    """How this object may start, from: rest, thrown, falling, pushed, rolling, walking."""
    rolling_quat: tuple[float, float, float, float] | None = None
    """Orientation in which the object rolls along x, None where it does not roll."""
    rolling_radius_m: float = 0.0
    swinging_joints: tuple[tuple[str, float], ...] = ()
    """Joints that swing while the object walks, and the sign of each swing."""


@dataclass
class BodyBuilder:
    """Adds geoms to one body; `group` is the geom group by which the object can be drawn alone."""

    spec: Any
    body: Any
    name: str
    group: int
    parts: int = field(default=0)

    def next_name(self, kind: str) -> str:
        """A name that no other part of the model has."""
        self.parts += 1
        return f"{self.name}_{kind}{self.parts}"

    def material(self, look: Look, *, cube: bool = False, shine: float = 0.2) -> str:
        """A material of that look; `cube` wraps the texture around all six sides of a box or sphere."""
        name = self.next_name("material")
        material = self.spec.add_material(name=name, specular=shine, shininess=0.4)
        if isinstance(look, np.ndarray):
            side = look.shape[0]
            kind = mujoco.mjtTexture.mjTEXTURE_CUBE if cube else mujoco.mjtTexture.mjTEXTURE_2D
            texture = self.spec.add_texture(
                name=name, type=kind, width=side, height=6 * side if cube else side, nchannel=3
            )
            texture.data = np.ascontiguousarray(np.concatenate([look] * 6) if cube else look).tobytes()
            slots = list(material.textures)
            slots[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name
            material.textures = slots
        else:
            material.rgba = [*look, 1.0]
        return name

    def add(
        self,
        kind: Any,
        size: Sequence[float],
        look: Look | str,
        pos: Sequence[float] = (0.0, 0.0, 0.0),
        quat: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
        body: Any = None,
    ) -> None:
        """A visible part; `look` may be the name of a material made before."""
        material = look if isinstance(look, str) else self.material(look, cube=True)
        padded = [*size, 0.0, 0.0][:3]
        (body or self.body).add_geom(
            name=self.next_name("geom"), type=kind, size=padded, pos=list(pos), quat=list(quat),
            material=material, group=self.group, contype=0, conaffinity=0, mass=0.0,
        )  # fmt: skip

    def add_limb(
        self, start: Sequence[float], end: Sequence[float], radius: float, look: Look | str, body: Any = None
    ) -> None:
        """A capsule from start to end."""
        material = look if isinstance(look, str) else self.material(look)
        (body or self.body).add_geom(
            name=self.next_name("geom"), type=CAPSULE, fromto=[*start, *end], size=[radius, 0.0, 0.0],
            material=material, group=self.group, contype=0, conaffinity=0, mass=0.0,
        )  # fmt: skip

    def add_revolved(self, profile: Sequence[tuple[float, float]], texture: np.ndarray, sides: int = 28) -> None:
        """A surface of revolution about z, closed at both ends, with the texture wrapped once around it.

        Args:
            profile: (radius, height) from the bottom to the top; the ends should have radius about 0.
            texture: columns go around, the first row is the top.
        """
        radius, height = np.array(profile, dtype=float).T
        step = np.hypot(np.diff(radius), np.diff(height))
        along = np.concatenate([[0.0], np.cumsum(step)]) / step.sum()
        angle = np.linspace(0.0, 2.0 * np.pi, sides + 1)
        rows = len(profile)
        # The last column repeats the first place with its own texture coordinate.
        vertices = np.stack(
            [
                radius[:, None] * np.cos(angle),
                radius[:, None] * np.sin(angle),
                np.broadcast_to(height[:, None], (rows, sides + 1)),
            ],
            axis=-1,
        )
        coordinates = np.stack(np.broadcast_arrays(angle[None, :] / (2.0 * np.pi), 1.0 - along[:, None]), axis=-1)
        row, column = np.mgrid[0 : rows - 1, 0:sides]
        corner = (row * (sides + 1) + column).ravel()
        lower = np.stack([corner, corner + 1, corner + sides + 2], axis=-1)
        upper = np.stack([corner, corner + sides + 2, corner + sides + 1], axis=-1)
        name = self.next_name("mesh")
        mesh = self.spec.add_mesh(name=name)
        mesh.uservert = vertices.reshape(-1).tolist()
        mesh.usertexcoord = coordinates.reshape(-1).tolist()
        mesh.userface = np.concatenate([lower, upper]).reshape(-1).tolist()
        # Only the look matters: the weight comes from the colliding primitives.
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        self.body.add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, material=self.material(texture),
            group=self.group, contype=0, conaffinity=0, mass=0.0,
        )  # fmt: skip

    def collide(
        self,
        kind: Any,
        size: Sequence[float],
        mass: float,
        pos: Sequence[float] = (0.0, 0.0, 0.0),
        quat: Sequence[float] = (1.0, 0.0, 0.0, 0.0),
        friction: float = 0.6,
    ) -> None:
        """An invisible part with mass that the physics sees."""
        self.body.add_geom(
            name=self.next_name("hull"), type=kind, size=[*size, 0.0, 0.0][:3], pos=list(pos), quat=list(quat),
            rgba=[0.0, 0.0, 0.0, 0.0], group=self.group, mass=mass, friction=[friction, 0.005, 0.0001],
        )  # fmt: skip


def _build_ball(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """A beach ball: six segments in white and one or two saturated colours."""
    radius = rng.uniform(0.17, 0.27)
    hue = rng.uniform()
    first = hsv(hue, rng.uniform(0.85, 1.0), rng.uniform(0.8, 1.0))
    second = hsv(hue + rng.uniform(0.25, 0.75), rng.uniform(0.85, 1.0), rng.uniform(0.8, 1.0))
    white = hsv(0.0, 0.0, rng.uniform(0.9, 1.0))
    segment = np.arange(96) * 6 // 96
    palette = np.array([first, white, second, white, first, white] if rng.uniform() < 0.5 else [first, white] * 3)
    image = np.broadcast_to(palette[segment], (96, 96, 3)).copy()
    image[:6] = image[-6:] = white
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 17)
    profile = [(radius * max(np.cos(a), 1e-4), radius * np.sin(a)) for a in latitude]
    builder.add_revolved(profile, textures.to_uint8(image))
    builder.collide(SPHERE, [radius], mass=0.4)
    return BuiltObject(
        rest_height_m=radius,
        radius_m=radius,
        motions=("thrown", "thrown", "thrown", "rolling", "falling", "rest"),
        rolling_quat=(1.0, 0.0, 0.0, 0.0),
        rolling_radius_m=radius,
    )


def _build_crate(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """A wooden box of boards with a frame and a diagonal brace on each side."""
    half = list(rng.uniform(0.2, 0.3) * rng.uniform(0.88, 1.12, 3))
    wood = vary(rng, hsv(rng.uniform(0.075, 0.11), rng.uniform(0.45, 0.65), rng.uniform(0.6, 0.8)), 0.03)
    frame = (wood[0] * 0.78, wood[1] * 0.74, wood[2] * 0.68)
    builder.add(BOX, half, textures.planks(rng, wood, frame))
    builder.collide(BOX, half, mass=6.0)
    return BuiltObject(
        rest_height_m=half[2],
        radius_m=float(np.linalg.norm(half)),
        motions=("rest", "pushed", "thrown", "falling"),
    )


def _build_barrel(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """A metal drum, blue or red or rusty, with two swollen ribs and a light lid."""
    radius = rng.uniform(0.2, 0.27)
    half = radius * rng.uniform(1.35, 1.6)
    hue = [0.6, 0.6, 0.0, 0.04][rng.integers(4)] + rng.uniform(-0.02, 0.02)
    paint = hsv(hue, rng.uniform(0.75, 0.95), rng.uniform(0.5, 0.8))
    size = textures.TEXTURE_SIZE
    image = textures.cloudy(rng, paint, 0.08) / 255.0
    row = np.arange(size) / size
    # Along the profile from the top: the lid, then the side with its ribs, then the bottom.
    lid = radius / (2 * radius + 2 * half)
    image[row < lid] = image[row < lid] * 0.3 + 0.45
    for place in (0.0, 0.345, 0.655, 1.0):
        band = np.abs(row - (lid + place * (1 - 2 * lid))) < 0.022
        image[band] *= 0.5
    rib = radius * 1.06
    profile = [(1e-4, -half), (radius * 0.9, -half), (rib, -half * 0.98), (rib, -half * 0.9), (radius, -half * 0.87)]
    for center in (-0.31, 0.31):
        profile += [(radius, half * (center - 0.07)), (rib, half * (center - 0.025))]
        profile += [(rib, half * (center + 0.025)), (radius, half * (center + 0.07))]
    profile += [(radius, half * 0.87), (rib, half * 0.9), (rib, half * 0.98), (radius * 0.9, half), (1e-4, half)]
    builder.add_revolved(profile, textures.to_uint8(image))
    builder.collide(CYLINDER, [rib, half], mass=8.0)
    return BuiltObject(
        rest_height_m=half,
        radius_m=float(np.hypot(rib, half)),
        motions=("rest", "rolling", "rolling", "pushed", "thrown"),
        rolling_quat=ALONG_Y,
        rolling_radius_m=rib,
    )


def _build_cone(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """An orange traffic cone with one or two white bands on a square foot."""
    height = rng.uniform(0.5, 0.75)
    radius = height * rng.uniform(0.24, 0.3)
    orange = vary(rng, hsv(rng.uniform(0.03, 0.065), 1.0, 1.0), 0.04)
    white = hsv(0.0, 0.0, rng.uniform(0.88, 1.0))
    size = textures.TEXTURE_SIZE
    image = np.broadcast_to(np.asarray(orange), (size, size, 3)).copy()
    row = np.arange(size) / size
    bands = [(0.3, 0.52)] if rng.uniform() < 0.6 else [(0.2, 0.34), (0.48, 0.62)]
    for start, end in bands:
        image[(row > start) & (row < end)] = white
    foot = height * 0.04
    top = height * 0.96
    slope = [(radius + (0.16 * radius - radius) * t, foot + (top - foot) * t) for t in np.linspace(0.0, 1.0, 7)]
    builder.add_revolved([(1e-4, foot), *slope, (1e-4, top)], textures.to_uint8(image))
    foot_color = orange if rng.uniform() < 0.6 else (0.12, 0.12, 0.13)
    builder.add(BOX, [radius * 1.3, radius * 1.3, foot], foot_color)
    builder.collide(BOX, [radius * 1.3, radius * 1.3, foot], mass=2.5)
    builder.collide(CYLINDER, [radius * 0.7, height * 0.2], mass=0.6, pos=[0.0, 0.0, height * 0.24])
    builder.collide(CAPSULE, [radius * 0.25, height * 0.2], mass=0.3, pos=[0.0, 0.0, height * 0.68])
    return BuiltObject(
        rest_height_m=foot,
        radius_m=height,
        motions=("rest", "rest", "pushed", "thrown", "falling"),
    )


def _build_dumbbell(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """Two dark pairs of discs on a light bar, lying along y."""
    half_bar = rng.uniform(0.3, 0.4)
    radius = rng.uniform(0.16, 0.21)
    dark = hsv(rng.uniform(), rng.uniform(0.0, 0.15), rng.uniform(0.06, 0.16))
    light = hsv(0.13, rng.uniform(0.0, 0.1), rng.uniform(0.85, 1.0))
    builder.add(CYLINDER, [0.035, half_bar], builder.material(light, shine=0.6), quat=ALONG_Y)
    weight = builder.material(dark, shine=0.5)
    width = rng.uniform(0.045, 0.06)
    for sign in (-1.0, 1.0):
        inner = sign * (half_bar - 0.06 - 2.1 * width)
        outer = sign * (half_bar - 0.06)
        builder.add(CYLINDER, [radius, width], weight, pos=[0.0, inner, 0.0], quat=ALONG_Y)
        builder.add(CYLINDER, [radius * 0.75, width], weight, pos=[0.0, outer, 0.0], quat=ALONG_Y)
        builder.collide(CYLINDER, [radius, 2.0 * width], 4.0, pos=[0.0, inner, 0.0], quat=ALONG_Y, friction=0.4)
    builder.collide(CYLINDER, [0.04, half_bar], 1.0, quat=ALONG_Y)
    return BuiltObject(
        rest_height_m=radius,
        radius_m=half_bar + 0.03,
        motions=("rest", "rolling", "rolling", "thrown", "thrown", "falling"),
        rolling_quat=(1.0, 0.0, 0.0, 0.0),
        rolling_radius_m=radius,
    )


def _build_rover(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """A small vehicle: a flat painted body on four dark wheels, with a camera on a mast; it drives along x."""
    half_length = rng.uniform(0.32, 0.42)
    half_width = half_length * rng.uniform(0.55, 0.65)
    half_height = rng.uniform(0.08, 0.11)
    wheel = rng.uniform(0.11, 0.15)
    paints = (hsv(0.0, 0.0, 0.92), hsv(0.14, 0.85, 0.95), hsv(0.36, 0.65, 0.65))
    paint = vary(rng, paints[rng.integers(len(paints))], 0.05)
    dark = (0.08, 0.08, 0.09)
    floor = wheel * 1.15
    middle = floor + half_height
    body = builder.material(paint)
    black = builder.material(dark, shine=0.1)
    builder.add(BOX, [half_length, half_width, half_height], body, pos=[0.0, 0.0, middle])
    builder.add(BOX, [half_length * 1.005, half_width * 1.005, half_height * 0.22], black, pos=[0.0, 0.0, middle])
    builder.add(
        BOX, [half_length * 0.5, half_width * 0.8, 0.015], (0.1, 0.14, 0.35),
        pos=[-half_length * 0.35, 0.0, middle + half_height + 0.015],
    )  # fmt: skip
    hub = builder.material((0.75, 0.75, 0.75))
    for x in (-0.68, 0.68):
        for side in (-1.0, 1.0):
            place = [x * half_length, side * (half_width + 0.045), wheel]
            builder.add(CYLINDER, [wheel, 0.045], black, pos=place, quat=ALONG_Y)
            builder.add(CYLINDER, [wheel * 0.4, 0.05], hub, pos=place, quat=ALONG_Y)
    mast = rng.uniform(0.22, 0.34)
    top = middle + half_height
    builder.add(CYLINDER, [0.022, mast / 2], (0.6, 0.6, 0.62), pos=[half_length * 0.55, 0.0, top + mast / 2])
    builder.add(BOX, [0.06, 0.11, 0.055], body, pos=[half_length * 0.55, 0.0, top + mast])
    for side in (-1.0, 1.0):
        builder.add(
            CYLINDER, [0.035, 0.02], black, quat=ALONG_X,
            pos=[half_length * 0.55 + 0.06, side * 0.05, top + mast],
        )  # fmt: skip
    builder.collide(BOX, [half_length, half_width + 0.08, middle / 2], 12.0, pos=[0, 0, middle / 2], friction=0.0)
    builder.collide(BOX, [half_length, half_width, half_height], 2.0, pos=[0, 0, middle], friction=0.2)
    return BuiltObject(
        rest_height_m=0.0,
        radius_m=float(np.hypot(half_length, top + mast)),
        motions=("walking", "walking", "walking", "rest"),
    )


def _build_humanoid(builder: BodyBuilder, rng: np.random.Generator) -> BuiltObject:
    """A person of capsules that walks along x: skin, hair, shirt, trousers and shoes."""
    s = rng.uniform(1.0, 1.35) / 1.75
    skin = hsv(rng.uniform(0.05, 0.08), rng.uniform(0.3, 0.6), rng.uniform(0.5, 0.95))
    skin_material = builder.material(skin)
    shirt_hue = rng.uniform()
    shirt = builder.material(hsv(shirt_hue, rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95)))
    trousers = builder.material(
        hsv(float(rng.choice([0.6, 0.1, shirt_hue + 0.5])), rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.5))
    )
    shoe = builder.material(hsv(0.0, 0.0, float(rng.choice([0.08, 0.9]))))
    hair = builder.material(hsv(rng.uniform(0.03, 0.12), rng.uniform(0.3, 0.8), rng.uniform(0.05, 0.45)))
    girth = rng.uniform(0.9, 1.2)
    builder.add(ELLIPSOID, [0.12 * s * girth, 0.2 * s * girth, 0.3 * s], shirt, pos=[0.0, 0.0, 1.17 * s])
    builder.add(ELLIPSOID, [0.12 * s * girth, 0.17 * s * girth, 0.12 * s], trousers, pos=[0.0, 0.0, 0.92 * s])
    builder.add_limb([0.0, 0.0, 1.4 * s], [0.0, 0.0, 1.5 * s], 0.055 * s, skin_material)
    builder.add(ELLIPSOID, [0.105 * s, 0.095 * s, 0.13 * s], skin_material, pos=[0.0, 0.0, 1.62 * s])
    builder.add(ELLIPSOID, [0.11 * s, 0.105 * s, 0.1 * s], hair, pos=[-0.025 * s, 0.0, 1.675 * s])
    joints: list[tuple[str, float]] = []
    for side in (-1.0, 1.0):
        leg = _add_swinging_limb(builder, [0.0, side * 0.095 * s * girth, 0.88 * s], joints, side)
        builder.add_limb([0, 0, 0], [0, 0, -0.42 * s], 0.078 * s, trousers, leg)
        builder.add_limb([0, 0, -0.42 * s], [-0.01 * s, 0, -0.78 * s], 0.06 * s, trousers, leg)
        builder.add(BOX, [0.11 * s, 0.05 * s, 0.04 * s], shoe, [0.045 * s, 0, -0.84 * s], body=leg)
        arm = _add_swinging_limb(builder, [0.0, side * 0.215 * s * girth, 1.37 * s], joints, -side)
        builder.add_limb([0, 0, 0], [0, side * 0.05 * s, -0.28 * s], 0.055 * s, shirt, arm)
        builder.add_limb([0, side * 0.05 * s, -0.28 * s], [0.06 * s, side * 0.06 * s, -0.54 * s], 0.042 * s,
                         skin_material, arm)  # fmt: skip
        builder.add(SPHERE, [0.055 * s], skin_material, [0.07 * s, side * 0.06 * s, -0.6 * s], body=arm)
    # Most of the weight sits in a broad frictionless foot, so that a walking person glides and does not tip.
    builder.collide(BOX, [0.22 * s, 0.22 * s, 0.05 * s], 40.0, pos=[0.0, 0.0, 0.05 * s], friction=0.0)
    builder.collide(CAPSULE, [0.17 * s, 0.5 * s], 4.0, pos=[0.0, 0.0, 0.95 * s], friction=0.2)
    return BuiltObject(
        rest_height_m=0.0,
        radius_m=1.75 * s,
        motions=("walking", "walking", "walking", "rest"),
        swinging_joints=tuple(joints),
    )


def _add_swinging_limb(builder: BodyBuilder, pos: Sequence[float], joints: list[tuple[str, float]], sign: float) -> Any:
    name = f"{builder.name}_limb{len(joints)}"
    limb = builder.body.add_body(name=name, pos=list(pos))
    limb.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0.0, 1.0, 0.0])
    # A moving body needs an inertia; a small one keeps the swing from shaking the rest.
    limb.explicitinertial = True
    limb.mass = 0.05
    limb.inertia = [1e-3, 1e-3, 1e-3]
    joints.append((name, sign))
    return limb


BUILDERS: dict[str, Callable[[BodyBuilder, np.random.Generator], BuiltObject]] = {
    "ball": _build_ball,
    "crate": _build_crate,
    "barrel": _build_barrel,
    "cone": _build_cone,
    "dumbbell": _build_dumbbell,
    "rover": _build_rover,
    "humanoid": _build_humanoid,
}
"""One builder for each name of CLASS_NAMES."""
