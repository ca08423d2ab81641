"""Makes a data set of simulated clips: in parallel processes, with a progress bar, and resumable."""

import dataclasses
import json
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memwarp_core.data.bags import METADATA_FILE, BagWriter
from memwarp_core.data.coco_vid import (
    DISPLACEMENT_FOLDER,
    IMAGES_FOLDER,
    ClipAnnotations,
    frame_annotations,
    write_coco_vid,
)
from memwarp_core.data.displacement_file import write_displacement
from memwarp_core.data.simulation.config import CLASS_NAMES, SimulationConfig, clip_name, frame_name
from memwarp_core.errors import DataError
from memwarp_core.files import write_bytes_whole

CONFIG_FILE = "simulation.json"
SCENES_VERSION = 1
"""Raised whenever the same configuration would render something else."""
BAG_START_NS = 1_000_000_000
"""Stamp of the first frame in a bag: ROS takes a stamp of zero for none."""
PARTS_FOLDER = ".parts"
"""Inside the output folder of a CocoVID data set: one JSON per finished clip, so that an interrupted run can go on."""


def simulate(config: SimulationConfig, output: Path) -> None:
    """Render the data set into folder `output`.

    The result depends on the configuration alone, not on `workers` nor on interruptions: a run that was
    interrupted goes on with the clips that are missing. Workers are spawned: a script that calls this needs the usual
    `if __name__ == "__main__":`.

    Raises: DataError if `output` holds something else, or if MuJoCo or a renderer is missing.
    """
    output = Path(output)
    _require_mujoco()
    _claim(output, config)
    missing = [clip for clip in range(config.clips) if not _finished_mark(config, output, clip).is_file()]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("simulating clips", total=config.clips, completed=config.clips - len(missing))
        # An OpenGL context does not survive a fork, so workers start fresh.
        with ProcessPoolExecutor(
            min(config.workers, max(len(missing), 1)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
        ) as pool:
            try:
                pending = [pool.submit(_make_clip, config, clip, output) for clip in missing]
                for done in as_completed(pending):
                    done.result()
                    progress.advance(task)
            except BrokenProcessPool as err:
                raise DataError(
                    "a rendering process died, most likely in the OpenGL driver or for want of memory; "
                    f"what is finished in {output} is kept, so try again with fewer workers (now {config.workers})."
                ) from err
            except BaseException:
                # The clips under way are finished, so that a run that is started again need not repeat them.
                pool.shutdown(cancel_futures=True)
                raise
    if config.format == "coco_vid":
        parts = [json.loads(_part(output, clip).read_text(encoding="utf-8")) for clip in range(config.clips)]
        clips = [ClipAnnotations(name=clip_name(clip), frames=tuple(frames)) for clip, frames in enumerate(parts)]
        write_coco_vid(output, clips, CLASS_NAMES)


def _claim(output: Path, config: SimulationConfig) -> None:
    """Write the configuration into the folder, or refuse a folder that belongs to something else."""
    settings = _settings(config)
    file = output / CONFIG_FILE
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except json.JSONDecodeError as err:
            raise DataError(f"{file}: expected JSON, got something else ({err}); choose an empty folder.") from err
        # A setting that is younger than the folder had its default when the folder was made.
        found = {**_settings(SimulationConfig()), **found}
        if found != settings:
            different = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
            changes = ", ".join(f"{key} {found.get(key)!r} there, {settings.get(key)!r} now" for key in different)
            raise DataError(
                f"{output} holds a data set of another configuration ({changes}); choose another folder, or delete it."
            )
        return
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} must be a new or empty folder, or an interrupted simulation; it holds other files.")
    write_bytes_whole(file, json.dumps(settings, indent=1).encode())


def _settings(config: SimulationConfig) -> dict[str, Any]:
    """All that decides the result."""
    settings = {key: value for key, value in dataclasses.asdict(config).items() if key != "workers"}
    return {**settings, "scenes_version": SCENES_VERSION}


def _require_mujoco() -> None:
    choose_renderer()
    try:
        import mujoco  # noqa: F401
    except ImportError as err:
        raise DataError(
            "simulated scenes are rendered by MuJoCo, which is not installed; `pip install memwarp[simulate]`."
        ) from err


def choose_renderer() -> None:
    """Render without a screen where nothing else was chosen; must be called before mujoco is imported."""
    if sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")


def _prepare_worker() -> None:
    # An interrupt from the keyboard reaches the workers as well; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    choose_renderer()
    # One thread per worker in a software renderer and in OpenCV: the workers are the parallelism.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    cv2.setNumThreads(1)


def _part(output: Path, clip: int) -> Path:
    return output / PARTS_FOLDER / f"{clip_name(clip)}.json"


def _bag(config: SimulationConfig, output: Path, clip: int) -> Path:
    return output if config.clips == 1 else output / clip_name(clip)


def _finished_mark(config: SimulationConfig, output: Path, clip: int) -> Path:
    """The file that is written last of all files of a clip."""
    return _part(output, clip) if config.format == "coco_vid" else _bag(config, output, clip) / METADATA_FILE


def _make_clip(config: SimulationConfig, clip: int, output: Path) -> None:
    if config.format == "coco_vid":
        _make_coco_vid_clip(config, clip, output)
    else:
        _make_bag(config, clip, _bag(config, output, clip))


def _make_coco_vid_clip(config: SimulationConfig, clip: int, output: Path) -> None:
    from memwarp_core.data.simulation.render import render_clip

    frames = []
    for index, rendered in enumerate(render_clip(config, clip)):
        name = Path(clip_name(clip)) / frame_name(index)
        bgr = cv2.cvtColor(rendered.frame.image, cv2.COLOR_RGB2BGR)
        _, content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality])
        write_bytes_whole(output / IMAGES_FOLDER / name, content.tobytes())
        if rendered.displacement is not None and rendered.valid is not None:
            field = (output / DISPLACEMENT_FOLDER / name).with_suffix(".png")
            write_displacement(field, rendered.displacement, rendered.valid)
        frames.append(frame_annotations(rendered.frame, name.as_posix(), rendered.visible_fractions))
    write_bytes_whole(_part(output, clip), json.dumps(frames).encode())


def _make_bag(config: SimulationConfig, clip: int, path: Path) -> None:
    from memwarp_core.data.simulation.render import render_clip
    from memwarp_core.data.simulation.scene import focal_length

    with BagWriter(path) as bag:
        bag.write_label_info(CLASS_NAMES, BAG_START_NS)
        for rendered in render_clip(config, clip):
            frame = rendered.frame
            stamp_ns = BAG_START_NS + frame.stamp_ns
            if config.compressed:
                bag.write_compressed_image(frame.image, stamp_ns, jpeg_quality=config.jpeg_quality)
            else:
                bag.write_image(frame.image, stamp_ns)
            bag.write_camera_info(config.width, config.height, focal_length(config), stamp_ns)
            bag.write_detections(
                frame.boxes_xyxy,
                [CLASS_NAMES[label] for label in frame.labels],
                stamp_ns,
                track_ids=[int(track) for track in frame.track_ids],
            )
