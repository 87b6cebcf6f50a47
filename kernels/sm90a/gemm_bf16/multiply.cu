// ---- warpgroup multiply

#define FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define EIGHT(i) FOUR(i), FOUR(i + 4)
#define SIXTEEN(i) EIGHT(i), EIGHT(i + 8)
#define THIRTY_TWO(i) SIXTEEN(i), SIXTEEN(i + 16)
#define SIXTY_FOUR(i) THIRTY_TWO(i), THIRTY_TWO(i + 32)
#define ACCUMULATORS_4 FOUR(0)
#define ACCUMULATORS_8 EIGHT(0)
#define ACCUMULATORS_12 EIGHT(0), FOUR(8)
#define ACCUMULATORS_16 SIXTEEN(0)
#define ACCUMULATORS_20 SIXTEEN(0), FOUR(16)
#define ACCUMULATORS_24 SIXTEEN(0), EIGHT(16)
#define ACCUMULATORS_32 THIRTY_TWO(0)
#define ACCUMULATORS_40 THIRTY_TWO(0), EIGHT(32)
#define ACCUMULATORS_48 THIRTY_TWO(0), SIXTEEN(32)
#define ACCUMULATORS_56 ACCUMULATORS_48, EIGHT(48)
#define ACCUMULATORS_64 SIXTY_FOUR(0)
#define ACCUMULATORS_72 SIXTY_FOUR(0), EIGHT(64)
#define ACCUMULATORS_80 SIXTY_FOUR(0), SIXTEEN(64)
#define ACCUMULATORS_88 ACCUMULATORS_80, EIGHT(80)
#define ACCUMULATORS_96 SIXTY_FOUR(0), THIRTY_TWO(64)
#define ACCUMULATORS_104 ACCUMULATORS_96, EIGHT(96)
#define ACCUMULATORS_112 ACCUMULATORS_96, SIXTEEN(96)
#define ACCUMULATORS_120 ACCUMULATORS_112, EIGHT(112)
#define ACCUMULATORS_128 SIXTY_FOUR(0), SIXTY_FOUR(64)

// Operand names %t0 to %t9, where t is the number of tens.
#define FIRST2(t) "%" #t "0,%" #t "1"
#define FIRST4(t) FIRST2(t) ",%" #t "2,%" #t "3"
#define FIRST6(t) FIRST4(t) ",%" #t "4,%" #t "5"
#define FIRST8(t) FIRST6(t) ",%" #t "6,%" #t "7"
#define TEN(t) FIRST8(t) ",%" #t "8,%" #t "9"
#define NAMES_4 FIRST4()
#define NAMES_8 FIRST8()
#define NAMES_12 TEN() "," FIRST2(1)
#define NAMES_16 TEN() "," FIRST6(1)
#define NAMES_20 TEN() "," TEN(1)
#define NAMES_24 NAMES_20 "," FIRST4(2)
#define NAMES_32 NAMES_20 "," TEN(2) "," FIRST2(3)
#define NAMES_40 NAMES_20 "," TEN(2) "," TEN(3)
#define NAMES_48 NAMES_40 "," FIRST8(4)
#define NAMES_56 NAMES_40 "," TEN(4) "," FIRST6(5)
#define SIXTY_NAMES NAMES_40 "," TEN(4) "," TEN(5)
#define NAMES_64 SIXTY_NAMES "," FIRST4(6)
#define NAMES_72 SIXTY_NAMES "," TEN(6) "," FIRST2(7)
#define NAMES_80 SIXTY_NAMES "," TEN(6) "," TEN(7)
#define NAMES_88 NAMES_80 "," FIRST8(8)
#define NAMES_96 NAMES_80 "," TEN(8) "," FIRST6(9)
#define HUNDRED_NAMES NAMES_80 "," TEN(8) "," TEN(9)
#define NAMES_104 HUNDRED_NAMES "," FIRST4(10)
#define NAMES_112 HUNDRED_NAMES "," TEN(10) "," FIRST2(11)
#define NAMES_120 HUNDRED_NAMES "," TEN(10) "," TEN(11)
#define NAMES_128 NAMES_120 "," FIRST8(12)

// d += rows (64 x 16) * columns^T (COLUMNS x 16), both in shared memory; d = that product when `accumulate` is 0.
DEVICE void multiply(float (&d)[REGISTERS], u64 rows, u64 columns, int accumulate) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %${operand_accumulate}, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n${columns}k16.f32.bf16.bf16 {" NAMES_${registers} "},"
        " %${operand_rows}, %${operand_columns}, p, 1, 1, 0, 0;\n}"
        : ACCUMULATORS_${registers} : "l"(rows), "l"(columns), "r"(accumulate));
}

DEVICE void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DEVICE void multiply_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int IN_FLIGHT>
DEVICE void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(IN_FLIGHT) : "memory");
}

// The matrix descriptor of K-major rows of 128 swizzled bytes: groups of 8 rows lie 1024 bytes apart.
DEVICE u64 descriptor(u32 address) {
    return (u64(1) << 62) | (u64(1024 >> 4) << 32) | (u64(1) << 16) | ((address & 0x3FFFF) >> 4);
}
