// The residual: a matrix of C's shape, added to what becomes C, perhaps times beta.
//
// Where it comes through the stages, the producer sends a tile's boxes behind its K-steps. So they arrive while the last
// of these are multiplied. Boxes of a stage are the consumers' in turn.
#pragma once
#include "constants.cu"
#include "copy.cu"
#include "element.cu"
#include "geometry.cu"
#include "mainloop.cu"
#include "schedule.cu"

template <bool IN_STAGES>
struct ResidualOf {
    using Type = const BitsAdded*;
};
template <>
struct ResidualOf<true> {
    using Type = TensorMap;
};
using Residual = ResidualOf<RESIDUAL_IN_STAGES>::Type;

// What threads read themselves.
DEVICE const BitsAdded* residual_of_threads(const BitsAdded* residual) { return residual; }

DEVICE const BitsAdded* residual_of_threads(const TensorMap&) { return nullptr; }

// Where box `box` of a consumer is in its stage.
DEVICE u32 residual_box_at(u32 stage, int box, int consumer) {
    return stage + (box % RESIDUAL_BOXES * CONSUMERS_OF_A_TILE + consumer) * CHUNK_BYTES;
}

// Sends the residual of the tile at `spot` through the ring. `ring` goes on behind it.
DEVICE void send_residual(const TensorMap& residual, Ring& ring, const Layout& layout, const Spot& spot) {
    for (int first = 0; first < TILE_BOXES; first += RESIDUAL_BOXES, ring.next()) {
        const int boxes = min(RESIDUAL_BOXES, TILE_BOXES - first);
        const u32 full = barrier_at(layout.full, ring.stage), stage = layout.stages + ring.stage * STAGE_BYTES;
        wait(barrier_at(layout.empty, ring.stage), ring.parity ^ 1);
        expect(full, boxes * CONSUMERS_OF_A_TILE * CHUNK_BYTES);
        for (int box = first; box < first + boxes; ++box)
            for (int consumer = 0; consumer < CONSUMERS_OF_A_TILE; ++consumer) {
                const int fragment = consumer * OUT_FRAGMENTS + box / OUT_CHUNKS;
                const int down = spot.row + fragment * WGMMA_M, across = spot.column + box % OUT_CHUNKS * CHUNK;
                const u32 target = residual_box_at(stage, box, consumer);
                load<1>(target, residual, SWAPPED ? down : across, SWAPPED ? across : down, full, 0, spot.matrix);
            }
    }
}

DEVICE void send_residual(const BitsAdded*, Ring&, const Layout&, const Spot&) {}

// A consumer's boxes of one tile, one after another.
struct Boxes {
    Ring& ring;
    const Layout& layout;
    const Release& release;
    int consumer;  // of those that share a tile

    // Where box `box` is, once it is there.
    DEVICE u32 operator[](int box) const {
        if (box % RESIDUAL_BOXES == 0) wait(barrier_at(layout.full, ring.stage), ring.parity);
        return residual_box_at(layout.stages + ring.stage * STAGE_BYTES, box, consumer);
    }

    // Box `box` has been read by all lanes. Its stage may be refilled behind the last.
    DEVICE void done(int box) const {
        if (box % RESIDUAL_BOXES != RESIDUAL_BOXES - 1 && box != TILE_BOXES - 1) return;
        __syncwarp();
        release(ring.stage);
        ring.next();
    }
};

// A number of the residual times beta, if it has one.
DEVICE float times(const float* beta, float number) { return HAS_BETA ? *beta * number : number; }

// Adds what is at `address` to one octet pair (or a last single one) of a fragment's columns: this lane gives the address
// of a row of an 8x8 matrix, as `stage_octets` does when it writes there.
DEVICE void add_octets(u32 address, float* v, const float* beta) {
    u32 x[4];
    if constexpr (SWAPPED)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address) : "memory");
#pragma unroll
    for (int i = 0; i < (CHUNK == OCTET ? OCTET_VALUES : 2 * OCTET_VALUES); ++i)
        v[i] += times(beta, ElementAdded::widened(static_cast<u16>(x[i / 2] >> 16 * (i % 2))));
}
