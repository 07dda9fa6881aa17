"""What an iterable yields, as bytes to send: tensors, arrays and buffers, with tokens and masks.

Nothing is imported here: an item brings its own library.
"""

from __future__ import annotations

import array
import ctypes
import sys
from dataclasses import dataclass
from typing import Any, List, Mapping, Optional, Tuple

from .errors import UsageError

#: Names under which a dict holds each part.
ACTIVATIONS = ("activations", "acts", "hidden_states", "x")
TOKENS = ("tokens", "input_ids", "token_ids")
MASK = ("mask", "attention_mask")

#: Bytes of one number.
SIZES = {"f16": 2, "bf16": 2, "f32": 4}
NAMES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32"}
_FORMATS = {"e": "f16", "f": "f32"}


@dataclass
class Chunk:
    """Rows of one item. `rows` counts them, whatever axes the item has."""

    #: [rows, width] or [contexts, context, width], contiguous.
    values: Any
    dtype: str
    rows: int
    width: int
    #: Rows per context, of an item with three axes.
    context: Optional[int]
    #: int32, one per row, contiguous.
    tokens: Any
    #: uint8, one per row, contiguous; 1: a row, 0: padding.
    mask: Any

    def parts(self) -> List[Tuple[Any, int]]:
        """The parts that are there, in the order of a frame, with their bytes per row."""
        sizes = (4, 1, self.width * SIZES[self.dtype])
        return [(part, size) for part, size in zip((self.tokens, self.mask, self.values), sizes) if part is not None]


def chunk_of(item: Any) -> Chunk:
    """Reads an item that an iterable yielded.

    item: activations, (activations, tokens), (activations, tokens, mask), or a dict with
    "activations" and perhaps "tokens" and "mask". activations: float16, bfloat16 or float32 (float64
    is converted), [rows, width] or [contexts, context, width]. tokens: integers, one per row. mask:
    one per row, 0 for padding. Throws UsageError.
    """
    values, tokens, mask = _parts(item)
    values, dtype = _floats(values)
    shape = tuple(map(int, values.shape))
    if len(shape) not in (2, 3):
        raise UsageError(f"activations must be [rows, width] or [contexts, context, width], but are {list(shape)}")
    if shape[-1] == 0:
        raise UsageError("activations have a width of 0")
    rows = shape[0] if len(shape) == 2 else shape[0] * shape[1]
    context = shape[1] if len(shape) == 3 else None
    return Chunk(
        values, dtype, rows, shape[-1], context, _per_row(tokens, "tokens", rows), _per_row(mask, "mask", rows)
    )


def memory_of(values: Any) -> memoryview:
    """The bytes of a contiguous tensor, array or buffer, without a copy. The caller keeps it alive."""
    if is_tensor(values):
        size = values.numel() * values.element_size()
        return memoryview((ctypes.c_char * size).from_address(values.data_ptr())).cast("B")
    # Arrays of bfloat16 have no buffer of their type.
    return memoryview(values.view("uint8") if _is_array(values) else values).cast("B")


def is_tensor(value: Any) -> bool:
    return hasattr(value, "data_ptr")


def is_on_card(value: Any) -> bool:
    return getattr(value, "is_cuda", False) is True


def is_item(data: Any) -> bool:
    """Whether data is rows itself, and not an iterable of them."""
    if isinstance(data, (tuple, Mapping)) or is_tensor(data) or _is_array(data):
        return True
    return isinstance(data, (memoryview, bytes, bytearray, array.array))


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array_interface__")


def _parts(item: Any) -> Tuple[Any, Any, Any]:
    if isinstance(item, tuple):
        if not 1 <= len(item) <= 3:
            raise UsageError(f"a tuple must be (activations, tokens, mask), but has {len(item)} parts")
        return (*item, None, None)[:3]
    if not isinstance(item, Mapping):
        return item, None, None
    unknown = [name for name in item if name not in ACTIVATIONS + TOKENS + MASK]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no part of the rows; a dict has activations, tokens and mask")
    found = [_one(item, names) for names in (ACTIVATIONS, TOKENS, MASK)]
    if found[0] is None:
        raise UsageError("a dict of rows has no activations")
    return found[0], found[1], found[2]


def _one(item: Mapping[str, Any], names: Tuple[str, ...]) -> Any:
    there = [name for name in names if item.get(name) is not None]
    if len(there) > 1:
        raise UsageError(f"a dict of rows has both {there[0]} and {there[1]}; leave one out")
    return item[there[0]] if there else None


def _floats(values: Any) -> Tuple[Any, str]:
    """Contiguous floats that a stream can hold, and the stream's name of their type."""
    if is_tensor(values):
        values = values.detach()
        name = str(values.dtype).replace("torch.", "")
        if name == "float64":
            values, name = values.float(), "float32"
        return _reachable(values).contiguous(), _name(name)
    if _is_array(values):
        name = values.dtype.name
        if name == "float64":
            values, name = values.astype("float32"), "float32"
        if values.dtype.byteorder == ">" or (values.dtype.byteorder == "=" and sys.byteorder == "big"):
            values = values.astype(values.dtype.newbyteorder("<"))
        # A copy only of what is not contiguous.
        return (values if values.flags.c_contiguous else values.copy(order="C")), _name(name)
    try:
        view = memoryview(values)
    except TypeError:
        raise UsageError(
            f"rows must be tensors, arrays or buffers, but one is of type {type(values).__name__}"
        ) from None
    if not view.c_contiguous:
        raise UsageError("a buffer of rows must be contiguous")
    if view.format == "d":
        shape = list(view.shape or ())
        return memoryview(array.array("f", view.cast("B").cast("d"))).cast("B").cast("f", shape), "f32"
    if view.format not in _FORMATS:
        raise UsageError(f"a buffer of rows must hold float16 or float32, but its format is {view.format!r}")
    return view, _FORMATS[view.format]


def _name(dtype: str) -> str:
    if dtype not in NAMES:
        raise UsageError(f"activations must be float16, bfloat16, float32 or float64, but are {dtype}")
    return NAMES[dtype]


def _reachable(tensor: Any) -> Any:
    """The tensor where it can be copied from: in the memory of this machine or of a CUDA card."""
    return tensor if tensor.device.type in ("cpu", "cuda") else tensor.cpu()


def _per_row(values: Any, what: str, rows: int) -> Any:
    """Token ids as int32 or a mask as uint8, one per row, contiguous; None stays None."""
    if values is None:
        return None
    if is_tensor(values):
        whole, count = not values.is_floating_point(), values.numel()
    elif _is_array(values):
        whole, count = values.dtype.kind in "iub", values.size
    else:
        values = _flat(values)
        whole, count = all(isinstance(each, int) for each in values), len(values)
    if count != rows:
        raise UsageError(f"{what} must be one per row, but are {count} for {rows} rows")
    if not whole and what == "tokens":
        raise UsageError("tokens must be whole numbers")
    if is_tensor(values):
        values = _reachable(values.detach()).reshape(-1)
        return (values.int() if what == "tokens" else (values != 0).byte()).contiguous()
    if _is_array(values):
        values = values.reshape(-1)
        return values.astype("int32") if what == "tokens" else (values != 0).astype("uint8")
    try:
        return array.array("i", values) if what == "tokens" else array.array("B", [each != 0 for each in values])
    except OverflowError:
        raise UsageError("tokens must be below 2^31") from None


def _flat(values: Any) -> List[Any]:
    try:
        nested = values.tolist() if isinstance(values, (memoryview, array.array)) else list(values)
    except TypeError:
        raise UsageError(f"tokens and masks must be tensors, arrays or lists, not {type(values).__name__}") from None
    if nested and isinstance(nested[0], (list, tuple)):
        return [each for part in nested for each in part]
    return nested
