"""Callbacks that also take what the middleware knows of a message."""

from collections.abc import Callable
from typing import Any

from rclpy.subscription import Subscription


def with_message_info(callback: Callable[[Any, dict[str, int]], None]) -> Callable[..., None]:
    """For create_subscription: a callback of a message and its info, which is empty with rclpy of Humble.

    Later ones pass `source_timestamp`, `received_timestamp` (ns, clock of the system) and `publication_sequence_number`
    to a callback with a second argument.
    """
    if hasattr(Subscription, "CallbackType"):
        return callback
    return lambda message: callback(message, {})
