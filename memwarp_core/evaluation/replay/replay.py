"""Replays bags through a detector as a robot would see them, and reports how good it is with the time it takes."""

import hashlib
import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memwarp_core.data.bags import METADATA_FILE, BagClip
from memwarp_core.errors import ConfigError, DataError, MemwarpError
from memwarp_core.evaluation.kept_runs import fingerprint
from memwarp_core.evaluation.replay.kept import CameraResult, read_results, write_results
from memwarp_core.evaluation.replay.latency import MEASURED, Latency, as_json, measure_latency, read_latency
from memwarp_core.evaluation.replay.output_bag import write_output_bag
from memwarp_core.evaluation.replay.page import write_page
from memwarp_core.evaluation.replay.recordings import Camera, bag_name, find_bags, open_cameras
from memwarp_core.evaluation.replay.reference import SELF, pseudo_truths
from memwarp_core.evaluation.replay.running import CameraRun, run_cameras, run_in_real_time
from memwarp_core.evaluation.replay.schedule import every_image, newest_wins
from memwarp_core.evaluation.replay.scoring import score_cameras
from memwarp_core.files import write_bytes_whole
from memwarp_core.streaming import VideoDetector, load_detector

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
RUNS_FOLDER = "runs"
BAGS_FOLDER = "bags"
_FORMAT = 1
"""Of what is kept; raised when a file of an earlier version would be misread."""

Mode = Literal["offline", "simulated", "realtime", "ros"]
Save = Literal["outputs", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayConfig:
    """What decides the result, beside the bags themselves."""

    model: str = "memnet-tiny"
    """A name, or the path of a weights file."""
    baseline: str | None = "rfcn-tiny"
    """A detector that goes through the same images with the same latency; None for none."""
    mode: Mode = "simulated"
    """offline: every image, as if processing took no time. simulated: by a virtual clock, the newest image wins.
    realtime: the same by the real time that this computer takes, for each of the two models.
    ros: by the detector's node; see memwarp_ros/replay_evaluation.py."""
    latency: str = MEASURED
    """Of simulated: see read_latency; "measured" is how long `model` takes on this computer."""
    seed: int = 0
    """Of the draws from the latencies."""
    horizons_s: tuple[float, ...] = (0.05, 0.1, 0.2)
    topics: tuple[str, ...] = ()
    """Of images, one per camera; empty for the only one."""
    truth_topics: tuple[str, ...] = ()
    """Of Detection2DArray, one per camera; empty for /ground_truth where there is one."""
    truth_file: Path | None = None
    """CocoVID, instead of topics."""
    pseudo: str | None = None
    """A model whose detections are the reference instead, or "self"; see reference.py."""
    device: str = "auto"

    def __post_init__(self) -> None:
        given = [
            name
            for name, value in (
                ("ground truth topics", self.truth_topics),
                ("a ground truth file", self.truth_file),
                ("a pseudo reference", self.pseudo),
            )
            if value
        ]
        if len(given) > 1:
            raise ConfigError(f"expected one reference, got {' and '.join(given)}; choose one of them.")
        if self.mode not in get_args(Mode):
            raise ConfigError(f"mode {self.mode!r}: expected one of {', '.join(get_args(Mode))}.")


def replay(
    paths: Sequence[Path], config: ReplayConfig, output: Path, *, jobs: int = 1, save: Save | None = None
) -> dict[str, Any]:
    """Replay bags, score them, and write the report into a folder.

    What was said is kept in its folder `runs`, from which a replay goes on that was interrupted or gets more bags.

    Args:
        paths: of bags, folders of bags, and .txt files with a path per line.
        jobs: processes that replay a bag each; the result is the same with any number. In real time, there is one.
        save: also write what the node would have published of each bag into a bag in the folder `bags`: its "outputs"
            alone, or "all", with everything that is in the bag.
    Returns: what is in report.json; see write_report.
    Raises: ConfigError for models or options that do not fit; DataError if no bag could be used.
    """
    if output.is_file():
        raise ConfigError(f"{output}: expected a folder for the report, got a file.")
    if config.mode == "ros":
        raise ConfigError("mode 'ros': that is what `python -m memwarp_ros.replay_evaluation` does.")
    bags = find_bags(paths)
    names = bag_names(bags)
    detector = _load(config.model, config.device)
    for other in _others(config):
        if _load(other, config.device).class_names != detector.class_names:
            raise ConfigError(
                f"expected a model with the classes of {config.model}, {', '.join(detector.class_names)}; {other} has "
                f"{', '.join(_load(other, config.device).class_names)}. Name another one, or --baseline none."
            )
    latency = _latency(bags, config, output, detector)
    settings = _settings(config, latency)
    files = {bag: output / RUNS_FOLDER / f"{names[bag]}-{_bag_hash(bag, settings)}.safetensors" for bag in bags}
    failed = dict(_replay_missing([bag for bag in bags if not files[bag].is_file()], files, config, latency, jobs))
    used = {bag: name for bag, name in names.items() if bag not in failed}
    if save is not None:
        _save_bags([*used], files, config, output, with_inputs=save == "all")
    with ExitStack() as stack:
        return write_report(
            output,
            config,
            {name: files[bag] for bag, name in used.items()},
            detector.class_names,
            clips=_clips(used, config, detector, output, stack),
            failed={names[bag]: error for bag, error in failed.items()},
            latency=latency,
        )


def write_report(
    output: Path,
    config: ReplayConfig,
    runs: Mapping[str, Path],
    class_names: Sequence[str],
    *,
    clips: Mapping[str, Sequence[BagClip]],
    failed: Mapping[str, str],
    latency: Latency | None = None,
) -> dict[str, Any]:
    """Score what was said of bags, and write report.json and report.html into a folder.

    Args:
        runs: by bag, what write_results wrote of its cameras.
        clips: by bag, its cameras, where images can be shown.
        failed: by bag, why it could not be used.
        latency: what was drawn from.
    Returns: JSON-ready:
        "config", "latency_ms" (the times that were drawn from, as read_latency takes them) and "reference" ("kind":
            "ground truth" or "pseudo", and "of"; None without any);
        "all" and, by bag, "bags": figures of score_cameras;
        "failed", by bag why it could not be used, and "partial", by bag what is missing of it;
        "runs", by bag the name of its file in `runs`, and "class_names".
    Raises: DataError if no bag could be used.
    """
    if not runs:
        raise DataError("no bag could be used:\n" + "\n".join(f"{bag}: {error}" for bag, error in failed.items()))
    results = {name: read_results(file) for name, file in runs.items()}
    every = [*chain(*results.values())]
    timed = config.mode != "offline"
    figures = {name: score_cameras(of_bag, class_names, timed=timed) for name, of_bag in results.items()}
    report = {
        "config": {**asdict(config), "truth_file": str(config.truth_file) if config.truth_file else None},
        "latency_ms": None if latency is None else as_json(latency),
        "class_names": list(class_names),
        "reference": _reference(config, every),
        "all": next(iter(figures.values())) if len(figures) == 1 else score_cameras(every, class_names, timed=timed),
        "bags": figures,
        "failed": dict(failed),
        "partial": {name: of_bag["problems"] for name, of_bag in figures.items() if of_bag["problems"]},
        "runs": {name: file.name for name, file in runs.items()},
    }
    write_bytes_whole(output / REPORT_FILE, json.dumps(report, indent=1).encode())
    shown: dict[int, BagClip] = {}
    place = 0
    for name, of_bag in results.items():
        shown.update(enumerate(clips.get(name, ()), place))
        place += len(of_bag)
    write_page(output / PAGE_FILE, report, every, shown)
    return report


def _save_bags(
    bags: Sequence[Path], files: Mapping[Path, Path], config: ReplayConfig, output: Path, *, with_inputs: bool
) -> None:
    """Write the bags of what the node would have published, but for those that are there already."""
    detector = _load(config.model, config.device)
    model = (detector.name, detector.version)
    for bag in bags:
        path = output / BAGS_FOLDER / f"{files[bag].stem}{'-with-inputs' if with_inputs else ''}"
        if not (path / METADATA_FILE).is_file():
            with ExitStack() as stack:
                clips = [camera.clip for camera in _open(bag, config, detector, output, stack)]
                results = read_results(files[bag])
                write_output_bag(path, results, clips, detector.class_names, model=model, with_inputs=with_inputs)


def _clips(
    names: Mapping[Path, str], config: ReplayConfig, detector: VideoDetector, output: Path, stack: ExitStack
) -> dict[str, list[BagClip]]:
    """By name, the cameras of the bags that can still be opened."""
    clips = {}
    for bag, name in names.items():
        with suppress(DataError):
            clips[name] = [camera.clip for camera in _open(bag, config, detector, output, stack)]
    return clips


def _others(config: ReplayConfig) -> list[str]:
    """The models beside the one that is replayed."""
    return [name for name in (config.baseline, config.pseudo) if name is not None and name != SELF]


@cache
def _load(name: str, device: str) -> VideoDetector:
    return load_detector(name, device)


def bag_names(bags: Sequence[Path]) -> dict[Path, str]:
    """Short ones, unless two bags have the same."""
    short = [bag_name(bag) for bag in bags]
    return {
        bag: name if short.count(name) == 1 else str(bag).strip("/").replace("/", "_")
        for bag, name in zip(bags, short, strict=True)
    }


def _latency(bags: Sequence[Path], config: ReplayConfig, output: Path, detector: VideoDetector) -> Latency | None:
    """What is drawn from; what was measured is kept, so that a replay that goes on takes the same."""
    if config.mode != "simulated":
        return None
    if config.latency != MEASURED:
        return read_latency(config.latency, config.seed)
    kept = output / f"latency-{fingerprint(detector, str(config.horizons_s))[:16]}.json"
    if not kept.is_file():
        for bag in bags:
            try:
                with ExitStack() as stack:
                    clip = _open(bag, config, detector, output, stack)[0].clip
                    measured = measure_latency(detector, clip, config.horizons_s)
            except DataError:  # it is reported when it is replayed
                continue
            write_bytes_whole(kept, json.dumps(as_json(measured)).encode())
            break
        else:
            raise DataError(f"no bag could be opened to measure the latency on; the first is {bags[0]}.")
    return read_latency(str(kept), config.seed)


def _settings(config: ReplayConfig, latency: Latency | None) -> str:
    """All that decides what is said of a bag."""
    models = [fingerprint(_load(name, config.device), "") for name in (config.model, *_others(config))]
    of_truth_file = _status(config.truth_file) if config.truth_file else ""
    return f"{_FORMAT} {asdict(config)} {latency} {models} {of_truth_file}"


def _bag_hash(bag: Path, settings: str) -> str:
    digest = hashlib.sha256(settings.encode())
    for file in sorted(bag.iterdir()) if bag.is_dir() else [bag]:
        digest.update(_status(file).encode())
    return digest.hexdigest()[:16]


def _status(file: Path) -> str:
    try:
        status = file.stat()
    except FileNotFoundError:
        return f"{file} missing"
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _replay_missing(
    bags: Sequence[Path], files: dict[Path, Path], config: ReplayConfig, latency: Latency | None, jobs: int
) -> Iterator[tuple[Path, str]]:
    """Replay bags into their files. Yields those that could not be used, and why."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress, ExitStack() as stack:
        task = progress.add_task("replaying bags", total=len(bags))
        if jobs == 1 or len(bags) < 2 or config.mode == "realtime":
            for bag in bags:
                error = _replay_bag(bag, files[bag], config, latency)
                progress.advance(task)
                if error is not None:
                    yield bag, error
            return
        spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        pool = stack.enter_context(ProcessPoolExecutor(min(jobs, len(bags)), mp_context=spawn))
        pending = {pool.submit(_replay_bag, bag, files[bag], config, latency): bag for bag in bags}
        for done in as_completed(pending):
            progress.advance(task)
            try:
                error = done.result()
            except BrokenProcessPool:
                error = f"its process died, most likely for want of memory; try again with fewer than {jobs} jobs"
            if error is not None:
                yield pending[done], error


def _replay_bag(bag: Path, file: Path, config: ReplayConfig, latency: Latency | None) -> str | None:
    """Replay one bag into its file; returns why it could not be used, if so."""
    try:
        detector = _load(config.model, config.device)
        with ExitStack() as stack:
            cameras = _open(bag, config, detector, file.parent.parent, stack)
            clips = [camera.clip for camera in cameras]
            stamps_ns = [clip.stamps_ns for clip in clips]

            def run_with(detector: VideoDetector, horizons_s: Sequence[float]) -> list[CameraRun]:
                if config.mode == "realtime":
                    return run_in_real_time(detector, clips, stamps_ns, horizons_s)
                turns = every_image(stamps_ns) if latency is None else newest_wins(stamps_ns, latency.draws())
                return run_cameras(detector, clips, turns, horizons_s)

            runs = run_with(detector, config.horizons_s)
            baselines = None if config.baseline is None else run_with(_load(config.baseline, config.device), ())
            results = []
            for number, (camera, run) in enumerate(zip(cameras, runs, strict=True)):
                truths = camera.truths
                if config.pseudo is not None:
                    name = config.model if config.pseudo == SELF else config.pseudo
                    truths = tuple(pseudo_truths(_load(name, config.device), camera.clip))
                results.append(
                    CameraResult(
                        name=camera.name,
                        stamps_ns=camera.clip.stamps_ns,
                        truths=truths,
                        model=run,
                        baseline=None if baselines is None else baselines[number],
                        problems=camera.problems,
                    )
                )
    except ConfigError:
        raise
    except MemwarpError as error:
        return str(error)
    write_results(file, results)
    return None


def _open(bag: Path, config: ReplayConfig, detector: VideoDetector, output: Path, stack: ExitStack) -> list[Camera]:
    cameras = open_cameras(
        bag,
        detector.class_names,
        topics=config.topics,
        truth_topics=config.truth_topics,
        truth_file=config.truth_file,
        workplace=output / "salvaged",
    )
    for camera in cameras:
        stack.callback(camera.clip.close)
    return cameras


def _reference(config: ReplayConfig, results: Sequence[CameraResult]) -> dict[str, Any] | None:
    if config.pseudo is not None:
        return {"kind": "pseudo", "of": config.model if config.pseudo == SELF else config.pseudo}
    with_truths = sum(one.truths is not None for one in results)
    if not with_truths:
        return None
    source = str(config.truth_file) if config.truth_file else ", ".join(config.truth_topics) or "/ground_truth"
    return {"kind": "ground truth", "of": source, "cameras": with_truths, "of_cameras": len(results)}
