"""Half precision in a graph: convolutions and what lies between them, and nothing else."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from memwarp_core.export.half import to_half
from memwarp_core.export.tensorrt_engine import check_types

GENERATOR = np.random.default_rng(0)


def constant(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(GENERATOR.normal(size=shape).astype(np.float32), name)


def two_convolutions() -> onnx.ModelProto:
    """y = tanh(b + a) of a = convolution(x + offset) and b = convolution(between), between = ReLU(scale * a)."""
    nodes = [
        helper.make_node("Add", ["x", "offset"], ["moved"]),
        helper.make_node("Conv", ["moved", "weights", "bias"], ["first"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["first", "scale"], ["scaled"]),
        helper.make_node("Relu", ["scaled"], ["between"]),
        helper.make_node("Conv", ["between", "weights", "bias"], ["second"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["second", "first"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 6, 8]) for name in ("x", "y", "between")]
    constants = [
        constant("offset"),
        constant("weights", 4, 4, 3, 3),
        constant("bias", 4),
        constant("scale", 1, 4, 1, 1),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y", "between"], {"x": x})


def test_convolutions_and_what_lies_between_them_are_in_half_precision_and_nothing_else() -> None:
    model = two_convolutions()
    to_half(model)
    onnx.checker.check_model(model, full_check=True)
    half = check_types(model.SerializeToString(), "model")  # type: ignore[arg-type] # only for messages
    of_nodes = {f"{name}_half" for name in ("moved", "first", "scaled", "between", "second", "sum")}
    assert half == of_nodes | {"weights_half", "bias_half", "scale_half"}
    assert {one.name for one in model.graph.initializer} == {"offset", "weights_half", "bias_half", "scale_half"}
    # What goes in and out, and what the last operator reads, is brought to the other precision once.
    casts = [(node.input[0], node.output[0]) for node in model.graph.node if node.op_type == "Cast"]
    assert casts == [("moved", "moved_half"), ("sum_half", "sum"), ("between_half", "between")]


def test_results_are_those_of_single_precision_within_its_rounding() -> None:
    model = two_convolutions()
    x = GENERATOR.normal(size=(1, 4, 6, 8)).astype(np.float32)
    expected = run(model, x)
    to_half(model)
    for got, wanted in zip(run(model, x), expected, strict=True):
        assert got.dtype == np.float32
        # Some ten roundings by 2 ** -11 of sums over 36 values.
        np.testing.assert_allclose(got, wanted, atol=0.02 * np.abs(wanted).max())
