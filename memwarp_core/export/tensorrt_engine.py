"""Exported files become TensorRT engines, with the Python APIs of TensorRT 8.6, 10 and 11."""

from pathlib import Path
from typing import Any

from memwarp_core.errors import ConfigError, ExportError

INSTALL = "pip install 'memwarp[tensorrt]'"
_WORKSPACE_BYTES = 2 << 30
"""GPU memory that the fastest way to run an operator may take; a GPU is often shared."""
_TYPES = frozenset({"FLOAT", "FLOAT16", "INT32", "INT64", "BOOL"})
"""Of tensors in a graph that TensorRT computes as they are; 8.6 takes INT64 as INT32, which is enough for counts."""


def need_tensorrt() -> Any:
    """The package.

    Raises: ConfigError if it, or a library that it needs, is not there.
    """
    try:
        import tensorrt
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"backend tensorrt needs the package tensorrt, which cannot be imported ({error}); {INSTALL}"
        ) from error
    return tensorrt


def build_engine(path: Path) -> bytes:
    """The engine of an exported file, for the GPU that is in use.

    The file says in which precision each tensor is, and the engine keeps to it.

    Raises: ConfigError without TensorRT; ExportError if the graph has types that it lacks, or it refuses the graph.
    """
    trt = need_tensorrt()
    content = path.read_bytes()
    half = check_types(content, path)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    kinds = trt.NetworkDefinitionCreationFlag
    is_typed = hasattr(kinds, "STRONGLY_TYPED")  # from TensorRT 9 on, where batches are always explicit
    network = builder.create_network(1 << int(kinds.STRONGLY_TYPED if is_typed else kinds.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise ExportError(f"{path}: TensorRT {trt.__version__} refuses the graph: {errors}")
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    loose = [output.name for output in outputs if any(side < 0 for side in output.shape)]
    if loose:
        raise ExportError(f"{path}: TensorRT {trt.__version__} sees no fixed shape of {', '.join(loose)}.")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
    config.clear_flag(trt.BuilderFlag.TF32)  # fp32 means fp32
    if half and not is_typed:
        _hold_types(trt, network, half)
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(f"{path}: TensorRT {trt.__version__} could not build an engine; its own messages say why.")
    return bytes(engine)


def check_types(content: bytes, path: Path) -> frozenset[str]:
    """
    Args:
        content: of the exported file.
        path: of the file, for the message.
    Returns: the names of the tensors in half precision.
    Raises: ExportError if a tensor has a type that TensorRT does not compute with, such as float64.
    """
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
    graph = model.graph
    types = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info, *graph.output)}
    types |= {one.name: one.data_type for one in graph.initializer}
    names = {name: onnx.TensorProto.DataType.Name(number) for name, number in types.items()}
    refused = sorted(f"{name} ({kind})" for name, kind in names.items() if kind not in _TYPES)
    if refused:
        raise ExportError(
            f"{path}: expected tensors of {', '.join(sorted(_TYPES))}, which TensorRT computes with, got "
            f"{', '.join(refused[:10])}{' ...' if len(refused) > 10 else ''}; run this file with the backend onnx."
        )
    return frozenset(name for name, kind in names.items() if kind == "FLOAT16")


def _hold_types(trt: Any, network: Any, half: frozenset[str]) -> None:
    """Ask for the types of the file, where TensorRT (8.6) chooses the precision of each layer by its speed."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for place in range(layer.num_outputs):
            tensor = layer.get_output(place)
            if tensor.dtype in (trt.float32, trt.float16):
                layer.precision = trt.float16 if tensor.name in half else trt.float32
                layer.set_output_type(place, layer.precision)
