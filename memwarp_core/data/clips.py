"""What every source of frames with ground truth looks like to those who train and evaluate."""

from typing import Protocol

from memwarp_core.types import Frame


class Clip(Protocol):
    """A sequence of frames of one camera in the order of time; frames are read when they are asked for."""

    @property
    def name(self) -> str: ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that `Frame.labels` counts from 0."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Frame: ...
