"""gfx950 code objects run on this machine's CPU, instruction by instruction. May import core and objects.

`machine` imports none of the others; `instructions` imports `machine`; `hazards` and `clock` import both and not each
other; `schedules` imports all but `clock`; `execution` joins them and imports all.
"""
