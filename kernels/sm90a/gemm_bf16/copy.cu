// mbarriers, clusters and tensor copies. Instructions are inline PTX (named as in the PTX ISA 8.0), so that NVRTC needs
// no header.
#pragma once
#include "element.cu"
#include "geometry.cu"

// ---- mbarriers and clusters

DEVICE void initialise(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

DEVICE void expect(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// The address of block `rank`'s own copy of what is at `address` in this block.
DEVICE u32 address_in(u32 address, u32 rank) {
    u32 remote;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

DEVICE void arrive_in_cluster(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

DEVICE void wait(u32 barrier, u32 parity) {
    u32 done = 0;
    while (!done)
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done) : "r"(barrier), "r"(parity) : "memory");
}

DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release;" ::: "memory"); }

DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire;" ::: "memory"); }

DEVICE void cluster_sync() {
    cluster_arrive();
    cluster_wait();
}

// Named barriers: 0 is that of __syncthreads, each consumer's own come behind that of all consumers.
DEVICE void barrier_sync(int name, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

// Counts this thread among those that a barrier waits for, and goes on.
DEVICE void barrier_arrive(int name, int threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

DEVICE void consumers_sync() { barrier_sync(1, CONSUMER_THREADS); }

DEVICE void consumer_sync(int consumer) { barrier_sync(2 + consumer, WARPGROUP); }

constexpr int TURN_BARRIER = 4;  // and the next: one of each of two consumers

// ---- kernels that follow one another: where the launch allows it, blocks of the next start before this one ends

extern "C" __constant__ int hktune_programmatic = 1;  // who launches it may allow that

// Until the kernel before has ended, and what it wrote is there.
DEVICE void wait_for_kernel_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Blocks of the next kernel may start, where there is room for them, once all of this one have come here or ended.
DEVICE void allow_kernel_behind() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

// ---- tensor copies

DEVICE void prefetch(const TensorMap& map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

DEVICE void prefetch(const u16*) {}

// Where a map is of a stack, coordinates are of three dimensions, the last of which is the matrix. It is an operand
// behind all others.
#if BATCHED
#define LOAD "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
#define LOADED_FROM(matrix) "{%2, %3, " matrix "}"
#define AND_MATRIX(matrix) , "r"(matrix)
#else
#define LOAD "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
#define LOADED_FROM(matrix) "{%2, %3}"
#define AND_MATRIX(matrix)
#endif
#define LOAD_OF_TURNS "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"

// A copy to this block alone is a plain one: a multicast to one receiver reads the L2 as often and arrives later.
template <int SHARED_BY>
DEVICE void load(u32 target, const TensorMap& map, int column, int row, u32 barrier, u32 receivers, int matrix = 0) {
    if constexpr (SHARED_BY == 1)
        asm volatile(LOAD " [%0], [%1, " LOADED_FROM("%5") "], [%4];" ::"r"(target), "l"(&map), "r"(column), "r"(row),
                     "r"(barrier) AND_MATRIX(matrix) : "memory");
    else
        asm volatile(LOAD ".multicast::cluster [%0], [%1, " LOADED_FROM("%6") "], [%4], %5;" ::"r"(target), "l"(&map),
                     "r"(column), "r"(row), "r"(barrier), "h"(static_cast<u16>(receivers)) AND_MATRIX(matrix)
                     : "memory");
}

// The same of rows that take turns: of one kind, `turn`.
template <int SHARED_BY>
DEVICE void load_of_turns(u32 target, const TensorMap& map, int column, int turn, int row, u32 barrier, u32 receivers) {
    if constexpr (SHARED_BY == 1)
        asm volatile(LOAD_OF_TURNS " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target), "l"(&map), "r"(column), "r"(turn),
                     "r"(row), "r"(barrier) : "memory");
    else
        asm volatile(LOAD_OF_TURNS ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(target), "l"(&map),
                     "r"(column), "r"(turn), "r"(row), "r"(barrier), "h"(static_cast<u16>(receivers)) : "memory");
}

DEVICE void store(const TensorMap& map, u32 source, int column, int row, int matrix = 0) {
#if STACKED
    asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %4}], [%3];" ::"l"(&map),
                 "r"(column), "r"(row), "r"(source), "r"(matrix) : "memory");
#else
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map), "r"(column),
                 "r"(row), "r"(source) : "memory");
#endif
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Adds what is at `source` to the matrix, element by element, each sum rounded once.
DEVICE void store_added(const TensorMap& map, u32 source, int column, int row, int matrix = 0) {
#if STACKED
    asm volatile("cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2, %4}], [%3];" ::"l"(
                     &map), "r"(column), "r"(row), "r"(source), "r"(matrix) : "memory");
#else
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(
                     &map), "r"(column), "r"(row), "r"(source) : "memory");
#endif
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}
