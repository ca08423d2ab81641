import pytest

from memwarp_core import ConfigError
from memwarp_core.models.systems import find_system, systems
from memwarp_core.training.schedules import default_training


@pytest.mark.parametrize("name", [name for name in systems() if find_system(name).config.strong is None])
def test_every_system_has_a_training_on_its_own_sequences(name: str) -> None:
    system, config = find_system(name), default_training(name)
    assert config.detector == system.config
    last = config.stages[-1]
    if system.config.memory.kind == "none":
        assert last.trains == "frames"
    else:
        assert (last.trains, last.frames, last.temporal_stride) == ("memory", system.frames, system.temporal_stride)
    if system.config.features.kind == "resnet":
        assert (last.optimizer, last.learning_rate, last.weight_decay) == ("sgd", 1e-3, 5e-4)
        assert last.epochs * last.steps_per_epoch == pytest.approx(2 * (53_639 + 57_834) / 4, rel=0.01)


def test_a_fast_detector_needs_a_recipe_that_names_its_strong_one() -> None:
    with pytest.raises(ConfigError, match="strong_weights"):
        default_training("rfcn-18+clocknet-101-featprop")
