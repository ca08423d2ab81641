import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from memwarp_core.data.bags import read_bag
from memwarp_core.data.coco_vid import read_coco_vid
from memwarp_core.data.simulation import CLASS_NAMES, SimulationConfig, simulate
from memwarp_core.errors import ConfigError, DataError

SMALL = SimulationConfig(clips=2, frames=4, seed=5, width=160, height=96, displacement=True, workers=1)


def digests(folder: Path) -> dict[str, str]:
    """The content of every file but those that hold the configuration."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def small(renderer: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation") / "small"
    simulate(SMALL, folder)
    return folder


def test_same_seed_same_bytes_with_any_number_of_workers(small: Path, tmp_path: Path) -> None:
    simulate(dataclasses.replace(SMALL, workers=2), tmp_path / "again")
    assert digests(tmp_path / "again") == digests(small)


def test_another_seed_is_another_scene(small: Path, tmp_path: Path) -> None:
    simulate(dataclasses.replace(SMALL, seed=6, clips=1), tmp_path / "other")
    name = "images/clip_00000/000000.jpg"
    assert digests(tmp_path / "other")[name] != digests(small)[name]


def test_an_interrupted_run_goes_on(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    shutil.copytree(small, folder)
    (folder / "annotations.json").unlink()
    (folder / ".parts" / "clip_00001.json").unlink()
    (folder / "images" / "clip_00001" / "000002.jpg").unlink()
    kept = folder / "images" / "clip_00000" / "000000.jpg"
    written = kept.stat().st_mtime_ns
    simulate(SMALL, folder)
    assert digests(folder) == digests(small)
    assert kept.stat().st_mtime_ns == written


def test_a_folder_of_another_configuration_is_refused(small: Path) -> None:
    with pytest.raises(DataError, match="another configuration .*seed 5 there, 7 now"):
        simulate(dataclasses.replace(SMALL, seed=7), small)


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        simulate(SMALL, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_data_set_reads_as_coco_vid(small: Path) -> None:
    clips = read_coco_vid(small)
    assert [len(clip) for clip in clips] == [4, 4]
    frame = clips[0][1]
    assert clips[0].class_names == CLASS_NAMES
    assert frame.image.shape == (96, 160, 3)
    assert frame.stamp_ns == 50_000_000
    fractions = [a["visible_fraction"] for a in json.loads((small / "annotations.json").read_text())["annotations"]]
    assert fractions and all(0.25 <= fraction <= 1.0 for fraction in fractions)


def test_displacement_warps_the_previous_frame_onto_the_current_one(renderer: None) -> None:
    from memwarp_core.data.simulation.render import render_clip

    config = SimulationConfig(clips=1, frames=6, seed=11, degraded_fraction=0.0, displacement=True)
    warped_error, plain_error = [], []
    for clip in range(4):
        previous = None
        for rendered in render_clip(config, clip):
            image = rendered.frame.image
            if previous is not None:
                row, column = np.mgrid[: config.height, : config.width].astype(np.float32)
                field, valid = rendered.displacement, rendered.valid
                warped = cv2.remap(previous, column + field[..., 0], row + field[..., 1], cv2.INTER_LINEAR)
                warped_error.append(np.abs(warped[valid].astype(int) - image[valid]).mean())
                plain_error.append(np.abs(previous[valid].astype(int) - image[valid]).mean())
                assert valid.mean() > 0.8
            previous = image
    # What is left comes from resampling and from light that does not move with the surface.
    assert np.mean(warped_error) < 2.0
    assert np.mean(warped_error) < 0.5 * np.mean(plain_error)


def hand_made_scene(occluder_y: float | None, object_y: float = 0.0):
    """A cube of 0.5 m whose front is 2.75 m before the camera, and perhaps a wide post before its left part."""
    import mujoco

    from memwarp_core.data.simulation.camera import draw_camera_path
    from memwarp_core.data.simulation.objects import BuiltObject
    from memwarp_core.data.simulation.scene import Scene, SceneObject

    spec = mujoco.MjSpec()
    config = SimulationConfig()
    from memwarp_core.data.simulation.scene import vertical_fov_deg

    spec.visual.global_.fovy = vertical_fov_deg(config)
    spec.visual.global_.offwidth, spec.visual.global_.offheight = config.width, config.height
    spec.visual.quality.offsamples = 0
    spec.stat.extent = 1.0
    spec.worldbody.add_body(name="mount", mocap=True).add_camera(name="camera", fovy=vertical_fov_deg(config))
    if occluder_y is not None:
        spec.worldbody.add_geom(
            name="post", type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.01, 0.5, 0.5], pos=[2.7, occluder_y, 0.5]
        )
    body = spec.worldbody.add_body(name="object0")
    body.add_freejoint()
    body.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.25, 0.25, 0.25], group=1, rgba=[1, 0, 0, 1])
    model = spec.compile()
    built = BuiltObject(rest_height_m=0.25, radius_m=0.43, motions=("rest",))
    item = SceneObject(
        label=1,
        track_id=3,
        group=1,
        body=model.body("object0").id,
        built=built,
        motion="rest",
        qpos=0,
        dof=0,
        swings=(),
    )
    looking_along_x = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    scene = Scene(
        model=model,
        objects=(item,),
        camera=draw_camera_path(np.random.default_rng(0)),
        shadows=False,
        qpos=np.array([[3.0, object_y, 0.5, 1.0, 0.0, 0.0, 0.0]]),
        camera_position=np.array([[0.0, 0.0, 0.5]]),
        camera_rotation=looking_along_x[None],
        steps_per_frame=1,
        first_step=0,
        may_hide=np.ones(model.ngeom, bool),
    )
    return scene, config


def boxes_of(scene, config):
    from memwarp_core.data.simulation.render import SceneRenderer

    with SceneRenderer(scene, config) as renderer:
        renderer.pose(0)
        return renderer.boxes(renderer.geoms())


# 160 / tan(32.5 degrees) pixels times half the cube over the distance of its front.
HALF = 160 / np.tan(np.radians(32.5)) * 0.25 / 2.75


def test_box_sits_on_a_cube_of_known_size_and_place(renderer: None) -> None:
    boxes, labels, tracks, fractions = boxes_of(*hand_made_scene(None))
    np.testing.assert_allclose(boxes, [[160 - HALF, 96 - HALF, 160 + HALF, 96 + HALF]], atol=1.0)
    assert (labels.tolist(), tracks.tolist(), fractions.tolist()) == ([1], [3], [1.0])


def test_box_shows_the_visible_extent_behind_an_occluder(renderer: None) -> None:
    # World y is to the left: the post covers the left half of the image's middle, up to column 160.
    boxes, _, _, fractions = boxes_of(*hand_made_scene(0.5))
    np.testing.assert_allclose(boxes, [[160, 96 - HALF, 160 + HALF, 96 + HALF]], atol=1.0)
    # The whole silhouette is counted in an image of half the size: one of its pixels on each side is 5 % here.
    assert fractions[0] == pytest.approx(0.5, abs=0.05)


def test_an_object_that_is_mostly_hidden_has_no_box(renderer: None) -> None:
    # The post ends 0.15 m to the right of the middle: 0.1 of 0.5 m can be seen.
    boxes, labels, tracks, fractions = boxes_of(*hand_made_scene(0.35))
    assert boxes.shape == (0, 4) and len(labels) == len(tracks) == len(fractions) == 0


def test_an_object_cut_by_the_border_counts_what_is_outside_as_hidden(renderer: None) -> None:
    # The border cuts the front where |y| = tan(32.5 degrees) * 2.75 m; half the front is outside.
    at_border = float(np.tan(np.radians(32.5)) * 2.75)
    boxes, _, _, fractions = boxes_of(*hand_made_scene(None, object_y=at_border))
    assert boxes[0, 0] == 0.0
    # Its right side can be seen as well, which is inside the image.
    assert 0.4 < fractions[0] < 0.75


def test_a_single_simulated_bag_is_the_output_folder(renderer: None, tmp_path: Path) -> None:
    config = SimulationConfig(clips=1, frames=3, seed=5, width=160, height=96, format="bag", workers=1, min_objects=3)
    simulate(config, tmp_path / "walk")
    clip = read_bag(tmp_path / "walk")
    assert (clip.name, clip.class_names, len(clip)) == ("walk", CLASS_NAMES, 3)
    assert [clip[i].stamp_ns for i in range(3)] == [1_000_000_000, 1_050_000_000, 1_100_000_000]
    simulate(config, tmp_path / "walk")


def test_several_simulated_bags_have_a_folder_each(renderer: None, tmp_path: Path) -> None:
    config = SimulationConfig(
        clips=2,
        frames=2,
        seed=5,
        width=160,
        height=96,
        format="bag",
        compressed=False,
        degraded_fraction=0.0,
        workers=1,
    )
    simulate(config, tmp_path / "walks")
    clips = [read_bag(tmp_path / "walks" / name) for name in ("clip_00000", "clip_00001")]
    assert [clip.connection.topic for clip in clips] == ["/camera/image_raw"] * 2


def test_objects_move_as_thrown_bodies_do(renderer: None) -> None:
    """In free flight the second difference of the height is that of gravity."""
    from memwarp_core.data.simulation.scene import GRAVITY, build_scene

    config = SimulationConfig(frames=8, seed=2)
    flights = 0
    for clip in range(12):
        scene = build_scene(config, clip)
        for item in scene.objects:
            height = scene.qpos[:, item.qpos + 2]
            acceleration = np.diff(height, 2) * 400.0**2
            # The centre of mass is the body's origin only for the ball; the others also turn about it.
            if CLASS_NAMES[item.label] == "ball" and item.motion == "thrown":
                flights += 1
                assert np.median(acceleration[:20]) == pytest.approx(-GRAVITY, abs=0.05)
    assert flights > 0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("clips", 0, "clips must be at least 1, got 0"),
        ("rate_hz", 60, "rate_hz must be 5, 8, 10, .* or 50"),
        ("degraded_fraction", 1.0, "degraded_fraction must be 0 to 0.9"),
        ("min_objects", 6, "min_objects must be 1 to 5"),
        ("jpeg_quality", 0, "jpeg_quality must be 1 to 100"),
    ],
)
def test_impossible_configurations_are_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimulationConfig(**{field: value})


def test_bags_hold_no_displacement() -> None:
    with pytest.raises(ConfigError, match="coco_vid only"):
        SimulationConfig(format="bag", displacement=True)


def test_without_mujoco_everything_imports_and_simulate_says_what_to_install(tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["mujoco"] = None
from pathlib import Path
import memwarp_core.data.bags, memwarp_core.data.coco_vid
from memwarp_core.data.simulation import CLASS_NAMES, SimulationConfig, simulate
from memwarp_core.errors import DataError
try:
    simulate(SimulationConfig(clips=1), Path({str(tmp_path / "new")!r}))
except DataError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "pip install memwarp[simulate]" in result.stdout
    assert not (tmp_path / "new").exists()
