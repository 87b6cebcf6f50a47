"""What matmul.py is compiled for: the arguments of Triton's ASTSource, and the options of its AMD backend."""

SIGNATURE = {
    "a": "*bf16",
    "b": "*bf16",
    "c": "*bf16",
    "bias": "*bf16",
    "workspace": "*fp32",
    "m": "i32",
    "n": "i32",
    "k": "i32",
    "lda": "i32",
    "ldb": "i32",
    "ldc": "i32",
    "bias_given": "i32",
}

CONSTANTS = {
    "block_m": 256,
    "block_n": 256,
    "block_k": 32,
    "whole_k": True,
    "split_k": 1,
    "counters": 16384,
    "waves": 8,
    "wave_size": 64,
    "xcds": 8,
    "xcd_chunk": 8,
    "group_rows": 4,
}

# What Triton's own JIT finds out from the arguments of a call: what divides them, and that 31 bits reach every byte.
MEMORY = [["tt.divisibility", 16], ["tt.pointer_range", 32]]
ATTRIBUTES = {
    "a": MEMORY,
    "b": MEMORY,
    "c": MEMORY,
    "bias": MEMORY,
    "workspace": MEMORY,
    "n": [["tt.divisibility", 8]],
    "k": [["tt.divisibility", 8]],
    "lda": [["tt.divisibility", 8]],
    "ldb": [["tt.divisibility", 8]],
    "ldc": [["tt.divisibility", 8]],
}

OPTIONS = {
    "num_warps": 8,
    "num_stages": 4,
    "matrix_instr_nonkdim": 32,
    "enable_fp_fusion": True,
}

KNOBS = {
    "use_async_copy": True,
    "use_block_pingpong": False,
}
