"""gfx950 code objects run on this machine's CPU, instruction by instruction: rooms, and execution.py that joins them.

`machine` imports no other room, `instructions` imports `machine`, `hazards` and `clock` import both and not each other.
`execution` may import all. Of hktune only words, facts and formats are imported.
"""
