"""Drives the model library as ROCr does, without ROCr: a process of its own, as a fault ends it.

    python rocm_model_client.py CASE [CODE_OBJECT]

HSA_MODEL_LIB is the library; what was asked for and came is asserted, and `done` printed at the end.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
import sys
import time
from ctypes import CFUNCTYPE, POINTER, c_uint32, c_uint64, c_void_p
from pathlib import Path

import numpy as np

from hktune.objects.code_object import read_code_object

APERTURE_BYTES, PACKETS = 1 << 20, 8
WRITTEN, READ, RING, SIGNALS, CODE, ARGUMENTS, OUTPUT = 0x1000, 0x1040, 0x2000, 0x3000, 0x10000, 0x80000, 0x90000
INVALID, DISPATCH, BARRIER_AND, BARRIER_OR, VENDOR = 1, 2, 3, 5, 0
WRITABLE = 1 << 31


class QueueInfo(ctypes.Structure):
    _fields_ = (
        *((name, c_uint64) for name in ("ring", "written", "read", "doorbell")),
        ("ring_size", c_uint32),
        ("type", c_uint32),
    )


class Table(ctypes.Structure):
    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("create", CFUNCTYPE(c_void_p)),
        ("destroy", c_void_p),
        ("set_aperture", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64)),
        ("allocated", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64, c_uint32)),
        ("freed", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64)),
        ("set_notify_event", c_void_p),
        ("set_wait_event", c_void_p),
        ("register_queue", CFUNCTYPE(c_void_p, c_void_p, POINTER(QueueInfo))),
        ("set_set_event", CFUNCTYPE(None, c_void_p, CFUNCTYPE(None, c_void_p, c_uint32), c_void_p)),
        ("destroy_queue", CFUNCTYPE(None, c_void_p, c_void_p)),
    )


class Client:
    """One GPU with a queue of eight packets. Offsets are the GPU's addresses."""

    def __init__(self) -> None:
        library = ctypes.CDLL(os.environ["HSA_MODEL_LIB"])
        library.get_hsakmt_model_functions.restype = POINTER(Table)
        self.table = library.get_hsakmt_model_functions().contents
        assert (self.table.major, self.table.minor) == (0, 4)
        self.memory = mmap.mmap(-1, APERTURE_BYTES)
        self.words = np.frombuffer(self.memory, np.uint64)
        self.events: list[int] = []
        self._on_event = CFUNCTYPE(None, c_void_p, c_uint32)(lambda _data, event: self.events.append(event))
        self.gpu = self.table.create()
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.table.set_aperture(self.gpu, base, APERTURE_BYTES)
        self.table.set_set_event(self.gpu, self._on_event, None)
        for slot in range(PACKETS):
            self.memory[RING + 64 * slot] = INVALID
        info = QueueInfo(RING, WRITTEN, READ, 0, 64 * PACKETS, 2)
        self.queue = self.table.register_queue(self.gpu, info)

    def close(self) -> None:
        """End the queue's thread, which reads memory that goes with this object."""
        if self.queue:
            self.table.destroy_queue(self.gpu, self.queue)
        self.queue = 0

    def allocate(self, address: int, size: int) -> None:
        self.table.allocated(self.gpu, address, size, WRITABLE)

    def signal(self, index: int, value: int, event: int = 0) -> int:
        """A signal with `value`, and a mailbox where it has an event."""
        address = SIGNALS + 64 * index
        mailbox = SIGNALS + 0x800 + 8 * index if event else 0
        self.memory[address : address + 48] = struct.pack("<qqQIIQQ", 1, value, mailbox, event, 0, 0, 0)
        return address

    def value(self, signal: int) -> int:
        return int(self.words.view(np.int64)[signal // 8 + 1])

    def put(self, kind: int, body: bytes, completion: int = 0, format_: int = 0, valid: bool = True) -> int:
        """Write a packet as ROCr does: the body, then the header. Returns its slot's address."""
        number = int(self.words[WRITTEN // 8])
        address = RING + 64 * (number % PACKETS)
        while number - int(self.words[READ // 8]) >= PACKETS:
            time.sleep(1e-4)
        self.memory[address + 4 : address + 64] = (body.ljust(52, b"\0") + struct.pack("<Q", completion))[:60]
        self.words[WRITTEN // 8] = number + 1
        if valid:
            self.validate(address, kind, format_)
        return address

    def validate(self, address: int, kind: int, format_: int = 0) -> None:
        self.memory[address : address + 4] = struct.pack("<HBB", kind, format_, 0)

    def barrier(self, kind: int, signals: list[int], completion: int) -> None:
        self.put(kind, struct.pack("<I5Q", 0, *signals, *[0] * (5 - len(signals))), completion)

    def barrier_value(self, signal: int, value: int, mask: int, condition: int, completion: int) -> None:
        self.put(VENDOR, struct.pack("<IQqqI", 0, signal, value, mask, condition), completion, format_=2)

    def dispatch(self, kernel: int, completion: int, grid: int = 64) -> None:
        body = struct.pack("<HHHHIIIIIQQQ", 64, 1, 1, 0, grid, 1, 1, 0, 0, kernel, ARGUMENTS, 0)
        self.put(DISPATCH, body, completion)

    def waits(self, signal: int) -> bool:
        """Whether `signal` stays where it is for a while."""
        before = self.value(signal)
        time.sleep(0.05)
        return self.value(signal) == before

    def wait(self, signal: int, value: int = 0) -> None:
        deadline = time.monotonic() + 60
        while self.value(signal) != value:
            assert time.monotonic() < deadline, f"signal {signal:#x} is {self.value(signal)}, not {value}"
            time.sleep(1e-4)


def barriers(client: Client) -> None:
    first, second, done = client.signal(0, 1), client.signal(1, 2), client.signal(2, 1)
    client.barrier(BARRIER_AND, [first, second], done)
    assert client.waits(done)
    client.signal(0, 0)
    assert client.waits(done)
    client.signal(1, 0)
    client.wait(done)
    either = [client.signal(3, 1), client.signal(4, 1)]
    done = client.signal(5, 5)
    client.barrier(BARRIER_OR, either, done)
    assert client.waits(done)
    client.signal(4, 0)
    client.wait(done, 4)


def barrier_values(client: Client) -> None:
    """Equal, not equal, less, at least: each passes for one of two values, and waits for the other."""
    for condition, waiting, passing in ((0, 6, 0x15), (1, 0x25, 6), (2, 5, 4), (3, 4, 0x25)):
        signal, done = client.signal(0, waiting), client.signal(1, 1)
        client.barrier_value(signal, 5, 0xF, condition, done)
        assert client.waits(done), condition
        client.signal(0, passing)
        client.wait(done)
    done = client.signal(1, 1)
    client.barrier_value(0, 0, 0, 0, done)
    client.wait(done)


def order(client: Client) -> None:
    """More packets than the ring has; one that is not valid yet holds up those behind it; events are raised."""
    done = client.signal(0, 1000, event=7)
    for _ in range(20):
        client.barrier(BARRIER_AND, [], done)
    client.wait(done, 980)
    late = client.put(BARRIER_AND, b"", done, valid=False)
    client.barrier(BARRIER_AND, [], done)
    assert client.waits(done)
    client.validate(late, BARRIER_AND)
    client.wait(done, 978)
    while len(client.events) < 22:
        time.sleep(1e-4)
    assert client.events == [7] * 22
    assert int(client.words[(SIGNALS + 0x800) // 8]) == 7
    start, end = client.words[SIGNALS // 8 + 4 : SIGNALS // 8 + 6].tolist()
    assert 0 < start <= end
    client.close()
    client.words[WRITTEN // 8] += 1
    assert client.waits(done)


def kernel(client: Client) -> None:
    """A kernel's object in memory; it runs, and runs anew when its memory is given to another."""
    for value in (7, 9):
        load(client, sys.argv[2], value)
        client.allocate(OUTPUT, 4096)
        done = client.signal(0, 1)
        client.dispatch(DESCRIPTOR[0], done, grid=128)
        client.wait(done)
        found = np.frombuffer(client.memory, np.uint32, 64, OUTPUT)
        assert (found == value).all(), found
        for address, size in ((CODE, 0x10000), (ARGUMENTS, 4096), (OUTPUT, 4096)):
            client.table.freed(client.gpu, address, size)


DESCRIPTOR = [0]


def load(client: Client, path: str, value: int) -> None:
    """The segments of a code object, and a pointer to the output for its argument. `value` is what it stores."""
    code = read_code_object(Path(path).read_bytes())
    for start, data in code.segments:
        patched = data.replace(struct.pack("<I", 0x7E020287), struct.pack("<I", 0x7E020280 + value))
        client.memory[CODE + start : CODE + start + len(data)] = patched
        at = data.find(code.kernels["kernel"].descriptor)
        if at >= 0:
            DESCRIPTOR[0] = CODE + start + at
    client.allocate(CODE, 0x10000)
    client.allocate(ARGUMENTS, 4096)
    client.allocate(RING, 4096)
    client.memory[ARGUMENTS : ARGUMENTS + 8] = struct.pack("<Q", OUTPUT)


def fault(client: Client) -> None:
    """The output is not allocated."""
    load(client, sys.argv[2], 7)
    client.dispatch(DESCRIPTOR[0], client.signal(0, 1))
    client.wait(SIGNALS)


def part_of_a_workgroup(client: Client) -> None:
    load(client, sys.argv[2], 7)
    client.dispatch(DESCRIPTOR[0], client.signal(0, 1), grid=100)
    client.wait(SIGNALS)


def unknown(client: Client) -> None:
    client.put(4, b"", client.signal(0, 1))
    client.wait(SIGNALS)


if __name__ == "__main__":
    client = Client()
    globals()[sys.argv[1]](client)
    client.close()
    print("done", flush=True)
