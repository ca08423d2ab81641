"""fast_strong_node: detector_node with a fast detector that borrows the features of a strong one beside it."""

import sys

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.context import Context
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.publisher import Publisher
from std_msgs.msg import Header

from memwarp_core import ConfigError, Detections, DetectorState
from memwarp_core.models import load_weights
from memwarp_core.streaming import FastStrongPipeline, VideoDetector
from memwarp_ros import detector_node
from memwarp_ros.camera import Frame
from memwarp_ros.conversions import ns_to_stamp, to_status
from memwarp_ros.detector_node import DetectorNode
from memwarp_ros.msg import StrongFeatures
from memwarp_ros.parameters import pair_parameters

_LEVELS = {"running": DiagnosticStatus.OK, "closed": DiagnosticStatus.OK, "starting": DiagnosticStatus.WARN}


class FastStrongNode(DetectorNode):
    """Everything is as with detector_node; images never wait for the strong detector, which is in another process.

    configure starts that process and does not wait until it is ready; cleanup ends it. For each image,
    ~/strong_features says what its detections have borrowed.

    Args, Raises: as for DetectorNode.
    """

    config = "fast_strong.yaml"

    def __init__(self, name: str = "fast_strong", context: Context | None = None) -> None:
        super().__init__(name, context)
        self._pair = pair_parameters(self)
        self._pipeline: FastStrongPipeline | None = None
        self._strong_features: dict[str, Publisher] = {}
        self._failures = 0
        """Of the strong detector, so many are logged."""

    def load(self) -> VideoDetector:
        """See DetectorNode.load."""
        if self.settings.backend != "torch":
            raise ConfigError(f"a pair runs with backend torch only, got {self.settings.backend}.")
        self._pipeline = FastStrongPipeline(
            load_weights(self.settings.model),  # type: ignore[arg-type] # which refuses anything else
            (self.settings.device, self._pair.strong_device),
            self.settings.precision,  # type: ignore[arg-type]
            max_lag_frames=self._pair.max_lag_images,
            max_lag_s=self._pair.max_lag_s,
            strong_threads=self._pair.strong_threads,
            patience_s=self._pair.strong_patience_s,
        )
        return self._pipeline

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See DetectorNode."""
        result = super().on_configure(state)
        if result != TransitionCallbackReturn.SUCCESS:
            self._end_strong()
            return result
        self._strong_features = {
            camera.name: camera.create_publisher(StrongFeatures, "strong_features") for camera in self.cameras
        }
        return result

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See DetectorNode."""
        for publisher in self._strong_features.values():
            self.destroy_publisher(publisher)
        self._strong_features = {}
        self._end_strong()
        return super().on_cleanup(state)

    def destroy_node(self) -> None:
        """Also end the strong detector's process."""
        self._end_strong()
        super().destroy_node()

    def answer(self, frame: Frame, found: Detections, state: DetectorState) -> None:
        """See DetectorNode."""
        super().answer(frame, found, state)
        assert self._pipeline is not None
        boost = self._pipeline.boost(state)
        message = StrongFeatures(header=frame.header, borrowed=boost is not None)
        if boost is not None:
            message.source_stamp, message.lag_images = ns_to_stamp(boost.stamp_ns), boost.lag_frames
        self._strong_features[frame.camera.name].publish(message)

    def report(self, header: Header) -> list[DiagnosticStatus]:
        """See DetectorNode; and one of the strong detector."""
        return [*super().report(header), *self._report_strong()]

    def _report_strong(self) -> list[DiagnosticStatus]:
        pipeline = self._pipeline
        if pipeline is None:
            return []
        strong = pipeline.report
        if strong.failures > self._failures:
            self._failures = strong.failures
            self.get_logger().warning(
                f"the strong detector failed ({strong.failures} times so far) and is started again; the fast one goes "
                f"on: {strong.last_failure}"
            )
        values = {
            "images": str(strong.looked_at),
            "last image [ms]": f"{strong.look_ms:.1f}",
            "started again": str(strong.failures),
            "last failure": strong.last_failure,
        }
        status = to_status(
            _LEVELS.get(strong.condition, DiagnosticStatus.ERROR),
            strong.condition,
            values,
            name=f"{self.get_fully_qualified_name()}: strong detector",
            hardware_id=self._pair.strong_device,
        )
        return [status]

    def _end_strong(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is not None:
            pipeline.close()


def main() -> int:
    """See detector_node.main."""
    return detector_node.main(FastStrongNode)


if __name__ == "__main__":
    sys.exit(main())
