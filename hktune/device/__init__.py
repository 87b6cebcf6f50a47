"""Devices behind one protocol: the emulated one, and GPUs. May import core, emulator and objects."""
