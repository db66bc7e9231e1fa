//! Operations on the weights of selected experts, as an extension of Burn's CubeCL backend.
//!
//! A *slot* is one (token, rank) pair: slot = token K + rank. Letters as in [`crate::ops`]; N is the
//! number of output columns of a product, J its inner size, R the number of slots, G the experts in a tensor.

use burn::{
    backend::{
        Backend, Dispatch, TensorMetadata, backend_extension,
        cubecl::dtype_to_storage_type,
        fusion::custom::TensorSpec,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Int, Shape, Tensor},
};
use burn_cubecl::{
    CubeBackend,
    kernel::into_contiguous,
    ops::numeric::{empty_device_dtype, zeros_client},
    tensor::CubeTensor,
};
use cubecl::{CubeCount, CubeDim, ir::AddressType};

use super::kernels::{
    COLUMNS, LANES, TILE_COLUMNS, TILE_ROWS, TILE_UNITS, plan_kernel, rows_kernel, sum_kernel,
    tiles_kernel,
};

/// Which experts of a layer the matrices of one tensor are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// The first of them.
    pub(super) first: usize,
    /// Experts of the layer; all are in the tensor where they fit one.
    pub(super) total: usize,
}

/// Products with expert weights `w [G, N, J]`, those of the experts from `first` on. What belongs to experts
/// before or after them comes out as 0.
#[backend_extension(Cube, Fusion)]
pub(super) trait ExpertOps: Backend {
    /// `out[slot] = x[slot / share] w[experts[slot]]^T`: `[R, N]`, one dot product at a time.
    #[fusion(meta = |x, w, experts, _first, _share| rows_spec(x, w, experts))]
    fn expert_rows(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        experts: IntTensor<Self>,
        first: usize,
        share: usize,
    ) -> FloatTensor<Self>;

    /// `out[token] = sum over ranks of weights[slot] x[slot] w[experts[slot]]^T`: `[T, N]`.
    #[fusion(meta = |x, w, _experts, weights, _first| sum_spec(x, w, weights))]
    fn expert_sum(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        experts: IntTensor<Self>,
        weights: FloatTensor<Self>,
        first: usize,
    ) -> FloatTensor<Self>;

    /// Slots grouped by expert into tiles: `[tiles, 1 + TILE_ROWS]`, expert then slots, -1 for none.
    #[fusion(meta = |experts, total| plan_spec(experts, *total))]
    fn expert_plan(experts: IntTensor<Self>, total: usize) -> IntTensor<Self>;

    /// As `expert_rows`, tile by tile along a plan of all `total` experts.
    #[fusion(meta = |x, w, experts, _plan, _first, _total, _share| rows_spec(x, w, experts))]
    fn expert_tiles(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        experts: IntTensor<Self>,
        plan: IntTensor<Self>,
        first: usize,
        total: usize,
        share: usize,
    ) -> FloatTensor<Self>;
}

fn rows_spec(x: &TensorSpec, w: &TensorSpec, experts: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::new([experts.shape.num_elements(), w.shape[1]]), x.dtype)
}

fn sum_spec(x: &TensorSpec, w: &TensorSpec, weights: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::new([weights.shape[0], w.shape[1]]), x.dtype)
}

fn plan_spec(experts: &TensorSpec, total: usize) -> TensorSpec {
    let tiles = tiles(experts.shape.num_elements(), total);
    TensorSpec::new(Shape::new([tiles, 1 + TILE_ROWS]), experts.dtype)
}

/// Tiles that hold any grouping of `slots` slots by `experts` experts.
fn tiles(slots: usize, experts: usize) -> usize {
    slots / TILE_ROWS + experts.min(slots)
}

/// See [`ExpertOps::expert_rows`].
pub(super) fn expert_rows(
    x: Tensor<2>,
    w: &Tensor<3>,
    experts: &Tensor<2, Int>,
    group: Group,
    share: usize,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::expert_rows(
        x.into_dispatch(),
        w.clone().into_dispatch(),
        experts.clone().into_dispatch(),
        group.first,
        share,
    ))
}

/// See [`ExpertOps::expert_sum`].
pub(super) fn expert_sum(
    x: Tensor<2>,
    w: &Tensor<3>,
    experts: &Tensor<2, Int>,
    weights: &Tensor<2>,
    group: Group,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::expert_sum(
        x.into_dispatch(),
        w.clone().into_dispatch(),
        experts.clone().into_dispatch(),
        weights.clone().into_dispatch(),
        group.first,
    ))
}

/// See [`ExpertOps::expert_plan`].
pub(super) fn expert_plan(experts: &Tensor<2, Int>, total: usize) -> Tensor<2, Int> {
    Tensor::from_dispatch(Dispatch::expert_plan(experts.clone().into_dispatch(), total))
}

/// See [`ExpertOps::expert_tiles`].
pub(super) fn expert_tiles(
    x: Tensor<2>,
    w: &Tensor<3>,
    experts: &Tensor<2, Int>,
    plan: &Tensor<2, Int>,
    group: Group,
    share: usize,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::expert_tiles(
        x.into_dispatch(),
        w.clone().into_dispatch(),
        experts.clone().into_dispatch(),
        plan.clone().into_dispatch(),
        group.first,
        group.total,
        share,
    ))
}

impl ExpertOps for CubeBackend {
    fn expert_rows(
        x: CubeTensor,
        w: CubeTensor,
        experts: CubeTensor,
        first: usize,
        share: usize,
    ) -> CubeTensor {
        let (x, w, experts) = (into_contiguous(x), into_contiguous(w), into_contiguous(experts));
        let (group, columns, inner) = (w.shape()[0], w.shape()[1], w.shape()[2]);
        let slots = experts.shape().num_elements();
        let out = empty(&x, [slots, columns], DType::F32);
        let weight = dtype_to_storage_type(w.dtype);
        rows_kernel::launch(
            &x.client.clone(),
            CubeCount::Static((columns as u32).div_ceil(COLUMNS), slots as u32, 1),
            CubeDim::new_2d(LANES, COLUMNS),
            addresses(&w),
            x.into_tensor_arg(),
            w.into_tensor_arg(),
            experts.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            first as u32,
            group as u32,
            share as u32,
            columns as u32,
            inner as u32,
            weight,
        );
        out
    }

    fn expert_sum(
        x: CubeTensor,
        w: CubeTensor,
        experts: CubeTensor,
        weights: CubeTensor,
        first: usize,
    ) -> CubeTensor {
        let (x, w) = (into_contiguous(x), into_contiguous(w));
        let (experts, weights) = (into_contiguous(experts), into_contiguous(weights));
        let (group, columns, inner) = (w.shape()[0], w.shape()[1], w.shape()[2]);
        let (tokens, top_k) = (weights.shape()[0], weights.shape()[1]);
        let out = empty(&x, [tokens, columns], DType::F32);
        let weight = dtype_to_storage_type(w.dtype);
        sum_kernel::launch(
            &x.client.clone(),
            CubeCount::Static((columns as u32).div_ceil(COLUMNS), tokens as u32, 1),
            CubeDim::new_2d(LANES, COLUMNS),
            addresses(&w),
            x.into_tensor_arg(),
            w.into_tensor_arg(),
            experts.into_tensor_arg(),
            weights.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            first as u32,
            group as u32,
            top_k as u32,
            columns as u32,
            inner as u32,
            weight,
        );
        out
    }

    fn expert_plan(experts: CubeTensor, total: usize) -> CubeTensor {
        let experts = into_contiguous(experts);
        let slots = experts.shape().num_elements();
        let tiles = tiles(slots, total);
        let plan = empty(&experts, [tiles, 1 + TILE_ROWS], experts.dtype);
        let units = experts.client.properties().hardware.max_cube_dim.0.min(TILE_UNITS);
        plan_kernel::launch(
            &experts.client.clone(),
            CubeCount::Static(1, 1, 1),
            CubeDim::new_1d(units),
            experts.into_tensor_arg(),
            plan.clone().into_tensor_arg(),
            slots as u32,
            total as u32,
            tiles as u32,
            total as u32,
        );
        plan
    }

    fn expert_tiles(
        x: CubeTensor,
        w: CubeTensor,
        experts: CubeTensor,
        plan: CubeTensor,
        first: usize,
        total: usize,
        share: usize,
    ) -> CubeTensor {
        let (x, w, plan) = (into_contiguous(x), into_contiguous(w), into_contiguous(plan));
        let (group, columns, inner) = (w.shape()[0], w.shape()[1], w.shape()[2]);
        let shape = [experts.shape().num_elements(), columns];
        // Tiles of a group write only the slots of its experts.
        let out = match group == total {
            true => empty(&x, shape, DType::F32),
            false => {
                zeros_client(x.client.clone(), x.device.clone(), Shape::new(shape), DType::F32)
            }
        };
        let weight = dtype_to_storage_type(w.dtype);
        let tiles = plan.shape()[0] as u32;
        tiles_kernel::launch(
            &x.client.clone(),
            CubeCount::Static((columns as u32).div_ceil(TILE_COLUMNS as u32), tiles, 1),
            CubeDim::new_1d(TILE_UNITS),
            addresses(&w),
            x.into_tensor_arg(),
            w.into_tensor_arg(),
            plan.into_tensor_arg(),
            out.clone().into_tensor_arg(),
            first as u32,
            group as u32,
            share as u32,
            columns as u32,
            inner as u32,
            weight,
        );
        out
    }
}

/// Indices wide enough for the largest operand: an experts tensor can have more than 2^32 elements.
fn addresses(w: &CubeTensor) -> AddressType {
    AddressType::from_len(w.shape().num_elements())
}

fn empty(like: &CubeTensor, shape: [usize; 2], dtype: DType) -> CubeTensor {
    empty_device_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}
