"""Arguments of a kernel as Python has them, tensors among them, and what a kernel left in these."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hktune.core.errors import InputError
from hktune.core.expression import Expression
from hktune.device.device import HostArray
from hktune.objects.code_object import KernelImage
from hktune.verify.kernel_arguments import ELEMENT_BYTES, FLOATS, INTEGER_BYTES, Parameter
from hktune.verify.kernel_buffers import Numbers

Place: TypeAlias = "tuple[int, ...]"
"""Which argument: its position, then that of a field in a struct, and so on."""

_TORCH_TYPES = {dtype.torch_name: name for name, dtype in FLOATS.items()} | {
    "float64": "f64", "bool": "u8",
    **{f"{'u' * (name[0] == 'u')}int{8 * size}": name for name, size in INTEGER_BYTES.items()},
}  # fmt: skip
_NUMPY_TYPES = {"float16": "f16", "float32": "f32", "float64": "f64", "bool": "u8", "bfloat16": "bf16"} | {
    name: kind for name, kind in _TORCH_TYPES.items() if "int" in name or name.startswith("float8")
}
_OF_SIZE = {1: "i8", 2: "i16", 4: "i32", 8: "i64"}
_FLOAT_OF_SIZE = {2: "f16", 4: "f32", 8: "f64"}


@dataclass(frozen=True)
class GlobalLayout:
    """A tensor as HipKittens' kittens::gl; `compiled` says which of its four sizes are template arguments."""

    tensor: Any
    compiled: tuple[bool, bool, bool, bool] = (False, False, False, False)


def global_layout(tensor: Any, compiled: bool | Sequence[bool] = False) -> GlobalLayout:
    """`tensor` of up to four dimensions as a kittens::gl, whose sizes are batch, depth, rows and columns."""
    flags = (compiled,) * 4 if isinstance(compiled, bool) else tuple(compiled)
    if len(flags) != 4 or len(tensor.shape) > 4:
        raise InputError(f"a kittens::gl has 4 sizes: {len(flags)} marks are given, of {len(tensor.shape)} sizes")
    return GlobalLayout(tensor, flags)


class CalledArguments:
    """Arguments by position. `outputs` must be written whole; without them, what a kernel changes is an output.

    Raises InputError for an argument that no kernel can be passed.
    """

    def __init__(self, args: Sequence[Any], outputs: Sequence[int | Place] | None = None) -> None:
        self.args = tuple(args)
        self.types: dict[Place, str] = {}
        self._tensors: dict[Place, Any] = {}
        for position, value in enumerate(self.args):
            self._note(value, (position,))
        asked = None if outputs is None else [(each,) if isinstance(each, int) else tuple(each) for each in outputs]
        for place in asked or ():
            if place not in self._tensors:
                raise InputError(f"outputs names argument {_name(place)}, which is no tensor: {self._known()}")
        self._outputs = asked

    def _known(self) -> str:
        return f"tensors are {', '.join(_name(place) for place in self._tensors) or 'none'}"

    def _note(self, value: Any, place: Place) -> None:
        if isinstance(value, tuple):
            for position, field in enumerate(value):
                self._note(field, (*place, position))
            return
        tensor = value.tensor if isinstance(value, GlobalLayout) else value
        kind = type_of(tensor)
        if kind is not None:
            self.types[place], self._tensors[place] = kind, tensor
        elif not _is_plain(value):
            rule = "give tensors on the CPU, arrays, numbers, None, tuples, bytes or a ctypes.Structure"
            raise InputError(f"argument {_name(place)} is a {type(value).__name__}: {rule}")

    def parameters(self, image: KernelImage, left_out: frozenset[int] = frozenset()) -> tuple[Parameter, ...]:
        """As `kernel_arguments` describes them; a number has the size that the kernel has for it. `left_out` are
        positions that the kernel does not take."""
        given = [position for position in range(len(self.args)) if position not in left_out]
        sizes = [slot.size_bytes for slot in image.explicit]
        sizes += [4] * (len(given) - len(sizes))
        return tuple(
            self._parameter(self.args[position], (position,), size)
            for position, size in zip(given, sizes, strict=False)
        )

    def _parameter(self, value: Any, place: Place, size: int) -> Parameter:
        name = _parameter_name(place)
        if isinstance(value, tuple):
            fields = tuple(self._parameter(field, (*place, at), 4) for at, field in enumerate(value))
            return Parameter(name, kind="struct", fields=fields)
        if place in self._tensors:
            return self._buffer(name, value, place)
        if value is None:
            return Parameter(name, kind="null")
        if isinstance(value, (bytes, bytearray, ctypes.Structure)):
            return Parameter(name, kind="bytes", value=bytes(value).hex())
        return Parameter(name, _number_type(value, size), value=_text(value))

    def _buffer(self, name: str, value: Any, place: Place) -> Parameter:
        tensor = self._tensors[place]
        whole = self._outputs is not None and place in self._outputs and _is_contiguous(tensor)
        compiled = value.compiled[4 - len(tensor.shape) :] if isinstance(value, GlobalLayout) else ()
        packed = FLOATS[self.types[place]].packed if self.types[place] in FLOATS else 1
        shape = [*tensor.shape[:-1], tensor.shape[-1] * packed] if tensor.shape else [1]
        sizes = tuple(Expression(int(each), f"argument {name}") for each in shape)
        kind = "gl" if isinstance(value, GlobalLayout) else "buffer"
        return Parameter(name, self.types[place], kind, sizes, "out" if whole else "inout", compiled=compiled)

    def arrays(self) -> dict[str, HostArray]:
        """The bits of every tensor that is not poisoned, by the name of its parameter."""
        whole = [place for place in self._outputs or () if _is_contiguous(self._tensors[place])]
        return {_parameter_name(place): self._bits(place) for place in self._tensors if place not in whole}

    def _bits(self, place: Place) -> HostArray:
        return memory_of(self._tensors[place]).view(f"u{ELEMENT_BYTES[self.types[place]]}")

    def changed(self, left: Mapping[str, HostArray]) -> tuple[Place, ...]:
        """The outputs: those that were named, else the tensors that hold something else now."""
        if self._outputs is not None:
            return tuple(self._outputs)
        return tuple(p for p in self._tensors if left and _differs(self._bits(p), left[_parameter_name(p)]))

    def tensor(self, place: Place, left: Mapping[str, HostArray]) -> Any:
        """What a kernel left, like the tensor that was passed."""
        like = self._tensors[place]
        memory = np.ascontiguousarray(left[_parameter_name(place)]).reshape(-1).view(np.uint8)
        if isinstance(like, np.ndarray):
            return memory.view(like.dtype).reshape(like.shape)
        torch = sys.modules["torch"]
        return torch.from_numpy(memory.copy()).view(like.dtype).as_strided(like.shape, like.stride())

    def left(self, place: Place, left: Mapping[str, HostArray]) -> HostArray:
        """The bits of that, element by element."""
        return elements_of(self.tensor(place, left)).view(f"u{ELEMENT_BYTES[self.types[place]]}")

    def expected(self, reference: Callable[..., Any], outputs: Sequence[Place]) -> dict[Place, Numbers]:
        """What each output should hold, as `reference` has it. Raises InputError where that is not clear."""
        copies = {place: _copied(tensor) for place, tensor in self._tensors.items()}
        made = reference(*(self._replaced(value, (at,), copies) for at, value in enumerate(self.args)))
        if made is None:
            return {place: numbers_of(tensor) for place, tensor in copies.items()}
        several = list(made) if isinstance(made, (tuple, list)) else [made]
        if len(several) != len(outputs):
            found = ", ".join(_name(place) for place in outputs) or "none"
            rule = f"the reference makes {len(several)} outputs, and the kernel wrote arguments {found}"
            raise InputError(f"{rule}: name them with outputs=[...]")
        return {place: numbers_of(value) for place, value in zip(outputs, several, strict=True)}

    def _replaced(self, value: Any, place: Place, copies: Mapping[Place, Any]) -> Any:
        if isinstance(value, tuple):
            return tuple(self._replaced(field, (*place, at), copies) for at, field in enumerate(value))
        return copies.get(place, value)


def type_of(value: Any) -> str | None:
    """The element type of a tensor or an array; None of anything else. Raises InputError for a tensor that no kernel
    here can be passed."""
    if isinstance(value, np.ndarray):
        name, known = value.dtype.name, _NUMPY_TYPES
    elif _is_tensor(value):
        if value.device.type != "cpu":
            raise InputError(f"a tensor is on {value.device}: the emulator takes tensors on the CPU")
        name, known = str(value.dtype).removeprefix("torch."), _TORCH_TYPES
    else:
        return None
    if name not in known:
        raise InputError(f"a tensor of {name}: types are {', '.join(known)}")
    return known[name]


def memory_of(tensor: Any) -> HostArray:
    """The bytes from a tensor's first element to its last, gaps of its strides among them."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
    torch = sys.modules["torch"]
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    span = 1 + sum((size - 1) * stride for size, stride in sizes) if tensor.numel() else 0
    flat: HostArray = tensor.detach().as_strided((span,), (1,)).clone().view(torch.uint8).numpy()
    return flat


def elements_of(tensor: Any) -> HostArray:
    """The bytes of a tensor's elements, in order."""
    if isinstance(tensor, np.ndarray):
        return np.ascontiguousarray(tensor).view(np.uint8 if tensor.itemsize == 1 else tensor.dtype)
    torch = sys.modules["torch"]
    made: HostArray = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return made.view(f"u{tensor.element_size()}").reshape(tuple(tensor.shape))


def numbers_of(value: Any) -> Numbers:
    """A tensor, array or number as numpy's numbers."""
    if not _is_tensor(value):
        return np.asarray(value)
    torch = sys.modules["torch"]
    whole = not value.dtype.is_floating_point
    found: Numbers = value.detach().cpu().to(value.dtype if whole else torch.float64).numpy()
    return found


def _number_type(value: Any, size: int) -> str:
    if isinstance(value, np.generic):
        return _NUMPY_TYPES[value.dtype.name]
    if isinstance(value, float):
        return _FLOAT_OF_SIZE.get(size, "f32")
    kind = _OF_SIZE.get(size, "i32")
    return kind if value < 2 ** (8 * INTEGER_BYTES[kind] - 1) else kind.replace("i", "u")


def _text(value: Any) -> str:
    plain = value.item() if isinstance(value, np.generic) else value
    return repr(int(plain) if isinstance(plain, (bool, int)) else float(plain))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (int, float, np.generic, bytes, bytearray, ctypes.Structure))


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_contiguous(tensor: Any) -> bool:
    return bool(isinstance(tensor, np.ndarray) or tensor.is_contiguous())


def _copied(tensor: Any) -> Any:
    return tensor.copy() if isinstance(tensor, np.ndarray) else tensor.detach().clone()


def _differs(before: HostArray, after: HostArray) -> bool:
    return before.tobytes() != after.tobytes()


def _name(place: Place) -> str:
    return ".".join(map(str, place))


def _parameter_name(place: Place) -> str:
    return f"argument_{'_'.join(map(str, place))}"
