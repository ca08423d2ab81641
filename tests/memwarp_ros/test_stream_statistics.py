from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.serialization import deserialize_message, serialize_message

from memwarp_ros.stream_statistics import StreamStatistics

SECOND = 1_000_000_000


def report(statistics: StreamStatistics, now_ns: int, enabled: bool = True) -> tuple[bytes, str, dict[str, str]]:
    """Level, message and values, as a subscriber gets them."""
    status = statistics.report(now_ns, name="detector: /image", hardware_id="cpu", enabled=enabled, max_age_s=1.0)
    status = deserialize_message(serialize_message(status), DiagnosticStatus)
    return status.level, status.message, {pair.key: pair.value for pair in status.values}


def test_rate_is_that_since_the_last_report() -> None:
    statistics = StreamStatistics(now_ns=0)
    for now_ns, took_ns in ((SECOND // 4, 20_000_000), (SECOND // 2, 40_000_000)):
        statistics.receive(now_ns, age_ns=30_000_000, sequence_number=None)
        statistics.process(took_ns)
    level, message, values = report(statistics, SECOND)
    assert (level, message) == (DiagnosticStatus.OK, "2.0 images per second")
    assert values["rate [Hz]"] == "2.00"
    assert values["image age on arrival [ms]"] == "30.0"
    assert values["processing time, p50 [ms]"] == "30.0"
    assert values["processing time, p95 [ms]"] == "39.0"
    assert values["processing time, longest [ms]"] == "40.0"
    assert statistics.cycle_ns == SECOND // 4
    assert report(statistics, 2 * SECOND)[2]["rate [Hz]"] == "0.00"


def test_missing_numbers_are_dropped_images() -> None:
    statistics = StreamStatistics(now_ns=0)
    for number in (7, 8, 11, 12):
        statistics.receive(0, 0, number)
    assert (statistics.received, statistics.dropped) == (4, 2)


def test_numbers_that_begin_again_are_a_new_publisher() -> None:
    statistics = StreamStatistics(now_ns=0)
    for number in (100, 1, 2):
        statistics.receive(0, 0, number)
    assert statistics.dropped == 0


def test_images_that_passed_without_a_subscription_are_not_dropped() -> None:
    statistics = StreamStatistics(now_ns=0)
    statistics.receive(0, 0, 1)
    statistics.new_subscription(now_ns=0)
    statistics.receive(0, 0, 50)
    assert statistics.dropped == 0


def test_drops_have_their_reason_where_the_middleware_tells_what_it_lost() -> None:
    statistics = StreamStatistics(now_ns=0)
    statistics.new_subscription(now_ns=0, tells_of_losses=True)
    statistics.lose(3)
    statistics.receive(0, 0, 4)
    assert statistics.lost == 0, "what went before the first image is no matter of this stream"
    statistics.lose(2)
    values = report(statistics, SECOND)[2]
    assert values["images dropped"] == values["images dropped: lost on the way"] == "0", "the next number is not there"
    statistics.receive(0, 0, 10)
    values = report(statistics, SECOND)[2]
    assert values["images dropped"] == "5"
    assert values["images dropped: lost on the way"] == "2"
    assert values["images dropped: replaced by a newer one"] == "3"


def test_a_reason_that_nobody_tells_is_unknown() -> None:
    statistics = StreamStatistics(now_ns=0)
    for number in (1, 5):
        statistics.receive(0, 0, number)
    values = report(statistics, SECOND)[2]
    assert values["images dropped"] == "3"
    assert values["images dropped: lost on the way"] == values["images dropped: replaced by a newer one"] == "unknown"
    statistics.receive(0, 0, None)
    assert report(statistics, SECOND)[2]["images dropped"] == "unknown"


def test_silence_is_a_warning_unless_the_node_is_disabled() -> None:
    statistics = StreamStatistics(now_ns=0)
    assert report(statistics, 2 * SECOND)[0] == DiagnosticStatus.OK
    assert report(statistics, 3 * SECOND)[:2] == (DiagnosticStatus.WARN, "no image for 3 s")
    assert report(statistics, 4 * SECOND, enabled=False)[:2] == (DiagnosticStatus.OK, "disabled")
    statistics.new_subscription(now_ns=10 * SECOND)
    assert report(statistics, 11 * SECOND)[0] == DiagnosticStatus.OK
    assert report(statistics, 13 * SECOND)[:2] == (DiagnosticStatus.WARN, "no image for 3 s")


def test_an_image_that_is_too_old_is_a_warning_in_one_report() -> None:
    statistics = StreamStatistics(now_ns=0)
    statistics.receive(SECOND // 2, age_ns=3 * SECOND // 2, sequence_number=None)
    statistics.receive(SECOND, age_ns=SECOND, sequence_number=None)
    assert report(statistics, SECOND)[:2] == (DiagnosticStatus.WARN, "images up to 1.50 s old on arrival")
    statistics.receive(2 * SECOND, age_ns=SECOND, sequence_number=None)
    assert report(statistics, 2 * SECOND)[0] == DiagnosticStatus.OK


def test_a_refused_image_is_a_warning_in_one_report() -> None:
    statistics = StreamStatistics(now_ns=0)
    statistics.receive(SECOND, 0, None)
    statistics.refused += 1
    assert report(statistics, SECOND)[:2] == (DiagnosticStatus.WARN, "images refused: 1")
    level, _, values = report(statistics, 2 * SECOND)
    assert level == DiagnosticStatus.OK
    assert values["images refused"] == "1"
