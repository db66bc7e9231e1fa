//! CubeCL kernels of the experts layer. Slots, letters and shapes as in `extension.rs`: `w` holds the `group`
//! experts from `first` on.

use cubecl::prelude::*;

/// Units that share one dot product.
pub(super) const LANES: u32 = 32;
/// Dot products per cube.
pub(super) const COLUMNS: u32 = 8;
/// Slots per tile of a blocked product.
pub(super) const TILE_ROWS: usize = 32;
/// Columns per tile.
pub(super) const TILE_COLUMNS: usize = 64;
/// Inner elements held at once.
const TILE_INNER: usize = 16;
/// Units of a tile: each computes 2 rows x 4 columns.
pub(super) const TILE_UNITS: u32 = 256;

/// Adds up `partial` over the lanes of one column and returns the sum on lane 0.
#[cube]
fn sum_of_lanes(partial: f32) -> f32 {
    let mut sums = Shared::<[f32]>::new_slice(comptime!((LANES * COLUMNS) as usize));
    let row = UNIT_POS_Y * LANES;
    sums[(row + UNIT_POS_X) as usize] = partial;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(LANES.ilog2()) {
        let width = comptime!((LANES / 2) >> step);
        if UNIT_POS_X < width {
            let other = sums[(row + UNIT_POS_X + width) as usize];
            sums[(row + UNIT_POS_X) as usize] += other;
        }
        sync_cube();
    }
    sums[row as usize]
}

/// One cube: one slot and `COLUMNS` columns. Neighbouring lanes read neighbouring weights.
#[cube(launch, address_type = "dynamic")]
pub(super) fn rows_kernel<W: Float>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    experts: &Tensor<i32>,
    out: &mut Tensor<f32>,
    first: u32,
    group: u32,
    share: u32,
    columns: u32,
    inner: u32,
    #[define(W)] _weight: ElemType,
) {
    let slot = CUBE_POS_Y;
    let column = CUBE_POS_X * COLUMNS + UNIT_POS_Y;
    let mut partial = 0.0f32;
    let expert = experts[slot as usize] as u32;
    if column < columns && expert >= first && expert < first + group {
        let from = ((expert - first) * columns + column) as usize * inner as usize;
        let x_from = (slot / share * inner) as usize;
        let mut i = UNIT_POS_X;
        while i < inner {
            partial += x[x_from + i as usize] * f32::cast_from(w[from + i as usize]);
            i += LANES;
        }
    }
    let sum = sum_of_lanes(partial);
    if UNIT_POS_X == 0 && column < columns {
        out[(slot * columns + column) as usize] = sum;
    }
}

/// One cube: one token and `COLUMNS` columns, over all of the token's experts.
#[cube(launch, address_type = "dynamic")]
pub(super) fn sum_kernel<W: Float>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    experts: &Tensor<i32>,
    weights: &Tensor<f32>,
    out: &mut Tensor<f32>,
    first: u32,
    group: u32,
    top_k: u32,
    columns: u32,
    inner: u32,
    #[define(W)] _weight: ElemType,
) {
    let token = CUBE_POS_Y;
    let column = CUBE_POS_X * COLUMNS + UNIT_POS_Y;
    let mut partial = 0.0f32;
    if column < columns {
        for k in 0..top_k {
            let slot = token * top_k + k;
            let expert = experts[slot as usize] as u32;
            if expert >= first && expert < first + group {
                let from = ((expert - first) * columns + column) as usize * inner as usize;
                let x_from = (slot * inner) as usize;
                let mut dot = 0.0f32;
                let mut i = UNIT_POS_X;
                while i < inner {
                    dot += x[x_from + i as usize] * f32::cast_from(w[from + i as usize]);
                    i += LANES;
                }
                partial += dot * weights[slot as usize];
            }
        }
    }
    let sum = sum_of_lanes(partial);
    if UNIT_POS_X == 0 && column < columns {
        out[(token * columns + column) as usize] = sum;
    }
}

/// One cube in all: counts the slots of each expert, lays out their tiles, fills them in slot order.
#[cube(launch)]
pub(super) fn plan_kernel(
    experts: &Tensor<i32>,
    plan: &mut Tensor<i32>,
    slots: u32,
    total: u32,
    tiles: u32,
    #[comptime] capacity: u32,
) {
    let stride = comptime!(1 + TILE_ROWS as u32);
    let rows = comptime!(TILE_ROWS as u32);
    let mut i = UNIT_POS_X;
    while i < tiles * stride {
        plan[i as usize] = -1;
        i += CUBE_DIM_X;
    }
    let mut first = Shared::<[u32]>::new_slice(comptime!(capacity as usize));
    let mut e = UNIT_POS_X;
    while e < total {
        let mut count = 0u32;
        for slot in 0..slots {
            if experts[slot as usize] as u32 == e {
                count += 1;
            }
        }
        first[e as usize] = count;
        e += CUBE_DIM_X;
    }
    sync_storage();
    sync_cube();
    if UNIT_POS_X == 0 {
        let mut tile = 0u32;
        for e in 0..total {
            let count = first[e as usize];
            first[e as usize] = tile;
            tile += count.div_ceil(rows);
        }
    }
    sync_cube();
    let mut e = UNIT_POS_X;
    while e < total {
        let tile = first[e as usize];
        let mut count = 0u32;
        for slot in 0..slots {
            if experts[slot as usize] as u32 == e {
                let at = (tile + count / rows) * stride;
                plan[at as usize] = e as i32;
                plan[(at + 1 + count % rows) as usize] = slot as i32;
                count += 1;
            }
        }
        e += CUBE_DIM_X;
    }
}

/// One cube: one tile of slots and `TILE_COLUMNS` columns, through shared memory.
#[cube(launch, address_type = "dynamic")]
pub(super) fn tiles_kernel<W: Float>(
    x: &Tensor<f32>,
    w: &Tensor<W>,
    plan: &Tensor<i32>,
    out: &mut Tensor<f32>,
    first: u32,
    group: u32,
    share: u32,
    columns: u32,
    inner: u32,
    #[define(W)] _weight: ElemType,
) {
    let tile_rows = comptime!(TILE_ROWS as u32);
    let tile_columns = comptime!(TILE_COLUMNS as u32);
    let tile_inner = comptime!(TILE_INNER as u32);
    let units = comptime!(TILE_UNITS);
    let at = CUBE_POS_Y * (tile_rows + 1);
    // -1, of a tile without slots, is beyond any group too.
    let expert = plan[at as usize] as u32;
    if expert < first || expert >= first + group {
        terminate!();
    }
    let first_column = CUBE_POS_X * tile_columns;
    let mut xs = Shared::<[f32]>::new_slice(comptime!(TILE_ROWS * TILE_INNER));
    let mut ws = Shared::<[f32]>::new_slice(comptime!(TILE_COLUMNS * TILE_INNER));
    // This unit's 2 rows and 4 columns; columns lie 16 apart so that neighbours read neighbours.
    let row = UNIT_POS_X / 16 * 2;
    let column = UNIT_POS_X % 16;
    let mut sums = Array::<f32>::new(comptime!(8usize));
    #[unroll]
    for i in 0..8 {
        sums[i] = 0.0f32;
    }
    let mut from = 0u32;
    while from < inner {
        let mut i = UNIT_POS_X;
        while i < tile_rows * tile_inner {
            let slot = plan[(at + 1 + i / tile_inner) as usize];
            let j = from + i % tile_inner;
            let mut value = 0.0f32;
            if slot >= 0 && j < inner {
                value = x[(slot as u32 / share * inner + j) as usize];
            }
            xs[i as usize] = value;
            i += units;
        }
        let mut i = UNIT_POS_X;
        while i < tile_columns * tile_inner {
            let c = first_column + i / tile_inner;
            let j = from + i % tile_inner;
            let mut value = 0.0f32;
            if c < columns && j < inner {
                let row = ((expert - first) * columns + c) as usize;
                value = f32::cast_from(w[row * inner as usize + j as usize]);
            }
            ws[i as usize] = value;
            i += units;
        }
        sync_cube();
        for j in 0..tile_inner {
            #[unroll]
            for r in 0..2u32 {
                let value = xs[((row + r) * tile_inner + j) as usize];
                #[unroll]
                for c in 0..4u32 {
                    let weight = ws[((column + 16 * c) * tile_inner + j) as usize];
                    sums[(r * 4 + c) as usize] += value * weight;
                }
            }
        }
        sync_cube();
        from += tile_inner;
    }
    #[unroll]
    for r in 0..2u32 {
        let slot = plan[(at + 1 + row + r) as usize];
        #[unroll]
        for c in 0..4u32 {
            let c_at = first_column + column + 16 * c;
            if slot >= 0 && c_at < columns {
                out[(slot as u32 * columns + c_at) as usize] = sums[(r * 4 + c) as usize];
            }
        }
    }
}
