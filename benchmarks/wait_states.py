"""Counts where the code objects of a folder leave fewer wait states than the ISA guide asks for, by rule.

    python benchmarks/wait_states.py FOLDER [--arch gfx942] [--places]

Nothing is executed. Code is followed from the kernels' entries on as far as direct branches lead. Every stretch that
runs without a jump is a path that the hardware may take, and is judged by the rules of the hazard checker
(hktune/emulator/hazards/wait_states.py). What a jump brings near to each other is not looked at. "By the book" are the
rules that the checker only notes; all others are hazards. `--places` names the first place of each object with those.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from hktune.core.errors import KernelFault
from hktune.emulator.hazards.footprint import Footprint, footprint_of
from hktune.emulator.hazards.wait_states import Clock, Conflict, Producer, conflict, producer_of
from hktune.emulator.instructions.control import branch_target, falls_through
from hktune.emulator.instructions.decode import Instruction, decode
from hktune.emulator.machine.wave_start import Descriptor, entry_address
from hktune.objects.code_object import AmdCodeObject

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
from instruction_coverage import ARCH, memory_of, objects_below

_LONGEST_BYTES = 16
_FORGOTTEN = 64  # producers kept before those that nothing can follow too closely any more are dropped


@cache
def _known(words: tuple[int, ...]) -> tuple[Instruction, Footprint]:
    instruction = decode(b"".join(word.to_bytes(4, "little") for word in words).ljust(_LONGEST_BYTES, b"\0"), 0)
    return instruction, footprint_of(instruction)


def stretches(code: AmdCodeObject) -> Iterator[list[tuple[int, Footprint]]]:
    """Addresses and instructions of every stretch: from an entry or the target of a branch to an unconditional end."""
    memory = memory_of(code)
    pending = [entry_address(Descriptor.read(image.descriptor), image.entry_address) for image in code.kernels.values()]
    seen = set(pending)
    while pending:
        address, stretch = pending.pop(), list[tuple[int, Footprint]]()
        while True:
            try:
                found = decode(memory[address : address + _LONGEST_BYTES], address)
            except KernelFault:
                break
            stretch.append((address, _known(found.words)[1]))
            target = branch_target(found)
            if target is not None and target not in seen:
                seen.add(target)
                pending.append(target)
            if not falls_through(found):
                break
            address = found.next_address
            if address in seen:  # the rest is another's stretch; a few more instructions are what can be too close
                stretch += _tail(memory, address)
                break
        yield stretch


def _tail(memory: bytes, address: int, count: int = 20) -> Iterator[tuple[int, Footprint]]:
    for _ in range(count):
        try:
            found = decode(memory[address : address + _LONGEST_BYTES], address)
        except KernelFault:
            return
        yield address, _known(found.words)[1]
        if not falls_through(found):
            return
        address = found.next_address


def conflicts(stretch: list[tuple[int, Footprint]]) -> Iterator[tuple[int, Footprint, Producer, Conflict]]:
    """(address, instruction, what it follows, what is wrong)."""
    recent: list[Producer] = []
    clock = Clock()
    for address, footprint in stretch:
        for producer in recent:
            if producer.last > clock.counted and (found := conflict(producer, footprint, clock)) is not None:
                yield address, footprint, producer, found
        clock.pass_by(footprint)
        if (behind := producer_of(footprint, clock)) is not None:
            recent.append(behind)
        if len(recent) > _FORGOTTEN:
            recent = [producer for producer in recent if producer.last > clock.counted]


class Survey:
    """What was found, by rule and by whether it is by the book."""

    def __init__(self) -> None:
        self.places: Counter[tuple[str, bool]] = Counter()
        self.objects: defaultdict[tuple[str, bool], set[str]] = defaultdict(set)
        self.fewest: dict[tuple[str, bool], tuple[int, int]] = {}
        self.first: dict[str, str] = {}

    def add(self, name: str, code: AmdCodeObject) -> None:
        seen = set[tuple[int, str, bool]]()
        for stretch in stretches(code):
            for address, consumer, producer, found in conflicts(stretch):
                why = found.why.partition(" (")[0]
                key, states = (why, found.by_the_book), (found.there, found.needed)
                self.fewest[key] = min(self.fewest.get(key, states), states)
                if (address, *key) in seen:
                    continue
                seen.add((address, *key))
                self.places[key] += 1
                self.objects[key].add(name)
                if not found.by_the_book:
                    pair = f"{producer.footprint.instruction.mnemonic}, {consumer.instruction.mnemonic}"
                    place = f"{address:#x}: {pair}, {found.there} of {found.needed} states: {found.why}"
                    self.first.setdefault(name, place)

    def __str__(self) -> str:
        lines = []
        for key, count in self.places.most_common():
            kind, states = "by the book" if key[1] else "hazard", "{} of {}".format(*self.fewest[key])
            lines.append(f"{len(self.objects[key]):6} objects {count:8} places  {kind:11}  {states:8}  {key[0]}")
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--arch", default=ARCH, help="whose objects are judged; all by gfx950's rules (%(default)s)")
    parser.add_argument("--places", action="store_true")
    options = parser.parse_args()
    objects, survey = objects_below(options.folder, options.arch), Survey()
    for name, code in objects:
        survey.add(name, code)
    print(f"{len(objects)} {options.arch} code objects, {sum(len(code.kernels) for _, code in objects)} kernels")
    print(survey)
    for name, place in survey.first.items() if options.places else ():
        print(f"{name}: {place}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
