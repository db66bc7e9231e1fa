//! What kernels share: how many cubes there are, and sums over the units of one.

use cubecl::prelude::*;

/// Units of a cube that works on one row.
pub(super) const UNITS: u32 = 128;

/// Cubes a device starts along one dimension at most (WebGPU's smallest limit).
const MOST: u32 = 65_535;

/// `n` cubes or a few more; [`cube_index`] says which one runs.
pub(super) fn cubes(n: usize) -> CubeCount {
    let n = n as u32;
    let x = n.clamp(1, MOST);
    CubeCount::Static(x, n.div_ceil(x).max(1), 1)
}

/// Which of the [`cubes`] this is.
#[cube]
pub(super) fn cube_index() -> u32 {
    CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X
}

/// The sum of `value` over all units of the cube, on every unit.
#[cube]
pub(super) fn sum_of_units(value: f32) -> f32 {
    let mut all = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    all[UNIT_POS_X as usize] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(UNITS.ilog2()) {
        let width = comptime!((UNITS / 2) >> step);
        if UNIT_POS_X < width {
            let other = all[(UNIT_POS_X + width) as usize];
            all[UNIT_POS_X as usize] += other;
        }
        sync_cube();
    }
    all[0]
}

/// The largest `value` of all units of the cube, on every unit.
#[cube]
pub(super) fn max_of_units(value: f32) -> f32 {
    let mut all = Shared::<[f32]>::new_slice(comptime!(UNITS as usize));
    all[UNIT_POS_X as usize] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(UNITS.ilog2()) {
        let width = comptime!((UNITS / 2) >> step);
        if UNIT_POS_X < width {
            let other = all[(UNIT_POS_X + width) as usize];
            if other > all[UNIT_POS_X as usize] {
                all[UNIT_POS_X as usize] = other;
            }
        }
        sync_cube();
    }
    all[0]
}
