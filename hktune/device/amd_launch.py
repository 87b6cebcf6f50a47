"""What every AMD device, real or emulated, checks of code objects and launches, and the arguments that it hands over.

Checked here, a refusal says its reason; the runtime has one word for most of them.
"""

from __future__ import annotations

from hktune.core.errors import DeviceError, InputError
from hktune.core.launch import Argument, Launch
from hktune.device.argument_bytes import pack_argument
from hktune.device.device import Binding
from hktune.objects.code_object import AmdCodeObject, KernelImage, read_code_object

_MAX_WORKGROUP_SIZE = 1024


def checked_code(data: bytes, symbol: str, arch: str, features: tuple[str, ...] = ()) -> AmdCodeObject:
    """The code object, for `arch` and with `symbol` in it. Raises DeviceError when it is not.

    `features` are the device's settings ("sramecc+", "xnack-"), where the caller knows them.
    """
    try:
        code = read_code_object(data)
    except InputError as error:
        raise DeviceError(str(error)) from error
    misfit = code.misfit(arch, features)
    if misfit:
        raise DeviceError(f"{misfit}: rebuild it")
    if symbol not in code.kernels:
        raise DeviceError(f"no kernel {symbol!r} in the code object: it has {', '.join(sorted(code.kernels))}")
    return code


def check_launch(image: KernelImage, launch: Launch, lds_bytes: int) -> None:
    """Raises DeviceError for a launch that the hardware's dispatcher would refuse, or whose arguments are not the
    kernel's; a workgroup has `lds_bytes`."""
    check_sides(image, launch, lds_bytes)
    mismatch = image.mismatch(launch.arguments)
    if mismatch:
        raise DeviceError(f"{mismatch}: launch it with the arguments it was compiled for")


def check_sides(image: KernelImage, launch: Launch, lds_bytes: int) -> None:
    """Raises DeviceError where grid, block or LDS are what the hardware's dispatcher would refuse."""
    size = launch.block[0] * launch.block[1] * launch.block[2]
    limit = min(image.resources.max_workgroup_size, _MAX_WORKGROUP_SIZE)
    if min(launch.block) < 1 or size > limit:
        raise DeviceError(f"block {launch.block} has {size} work-items: {image.symbol} allows 1 to {limit}")
    if min(launch.grid) < 1:
        raise DeviceError(f"grid {launch.grid} has no workgroups: every side must be at least 1")
    asked = image.resources.lds_bytes + launch.dynamic_lds_bytes
    if launch.dynamic_lds_bytes < 0 or asked > lds_bytes:
        raise DeviceError(f"{image.symbol} asks for {asked} bytes of LDS: {lds_bytes} is the most")


def explicit_bytes(image: KernelImage, arguments: tuple[Argument, ...], binding: Binding) -> bytes:
    """The kernarg segment with its explicit part filled in. Raises DeviceError for a missing, unused or misfit binding.

    `arguments` have passed `check_launch`.
    """
    names = [argument.name for argument in arguments if argument.is_bound]
    missing, unused = sorted(set(names) - set(binding)), sorted(set(binding) - set(names))
    if missing or unused:
        raise DeviceError(f"the binding lacks {missing} and has unused {unused}: bind exactly {names}")
    data = bytearray(image.kernarg_bytes)
    for slot, argument in image.filled(arguments):
        packed = pack_argument(argument, binding[argument.name] if argument.is_bound else None)
        data[slot.offset_bytes : slot.offset_bytes + len(packed)] = packed
    return bytes(data)
