"""Half precision as a property of the exported graph, so that whatever runs it has nothing to choose."""

from typing import Any

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
_BETWEEN = frozenset({"Relu", "LeakyRelu", "MaxPool", "Add", "Mul", "Concat"})
"""Run in half precision on what comes from convolutions in half precision; for all else it is brought back."""


def to_half(model: Any) -> None:
    """Let convolutions, and what lies between them, run in half precision; all else, such as coordinates, in single.

    Inputs and outputs of the graph keep their types. It is what torch.autocast does with our networks but for products
    of matrices, which stay in single precision.

    Args:
        model: onnx.ModelProto in single precision; it is changed.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    nodes: list[Any] = []
    twins: dict[str, str] = {}
    """The half-precision twin of a tensor, by its name."""
    only_half: set[str] = set()
    """Tensors of which there is no more than the twin."""
    made: set[str] = set()
    """Tensors that were computed in half precision."""

    def twin(name: str) -> str:
        if name and name not in twins:
            twins[name] = f"{name}_half"
            if name in constants:
                value = numpy_helper.to_array(constants[name]).astype("float16")
                graph.initializer.append(numpy_helper.from_array(value, twins[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [twins[name]], to=TensorProto.FLOAT16))
        return twins.get(name, name)

    def bring_back(name: str) -> None:
        if name in only_half:
            nodes.append(helper.make_node("Cast", [twins[name]], [name], to=TensorProto.FLOAT))
            only_half.remove(name)

    for node in graph.node:
        computed = [name for name in node.input if name and name not in constants]
        if node.op_type in _CONVOLUTIONS or (node.op_type in _BETWEEN and computed and made.issuperset(computed)):
            node.input[:] = [twin(name) for name in node.input]
            made.update(node.output)
            only_half.update(node.output)
            twins.update((name, f"{name}_half") for name in node.output)
            node.output[:] = [twins[name] for name in node.output]
        else:
            for name in node.input:
                bring_back(name)
        nodes.append(node)
    for one in graph.output:
        bring_back(one.name)
    read = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in read]
    for field, values in ((graph.node, nodes), (graph.initializer, kept), (graph.value_info, [])):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)
