//! Kernels for GPUs (CubeCL), as an extension of Burn's CubeCL backend: what a decode step repeats in every
//! layer and Burn operations would cut into many dispatches.
//!
//! One file per kernel: what it computes and how it is launched. This one has the extension that names them
//! and their forms on tensors. Letters as in [`crate::ops`].

// A condition known at compile time stands alone around one that is not: it decides what is compiled.
#![allow(clippy::collapsible_if)]

mod cubes;
mod decode;
mod heads;
mod norm;
mod router;
mod softmax;
mod trace;

pub(super) use self::{
    decode::DecodeCall,
    heads::{HeadsCall, Norm, Turn},
    norm::NormCall,
    router::RouterCall,
    softmax::SoftmaxCall,
};

use burn::{
    backend::{
        Backend, Dispatch, backend_extension,
        fusion::custom::TensorSpec,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Int, Shape, Tensor},
};
use burn_cubecl::{
    CubeBackend,
    kernel::matmul::{MatmulStrategy, matmul},
    ops::numeric::empty_device_dtype,
    tensor::CubeTensor,
};

/// The operations; each is one dispatch unless it says otherwise.
#[backend_extension(Cube, Fusion)]
pub(super) trait GpuOps: Backend {
    /// Rows normalised, scaled and added: see [`norm`].
    #[fusion(meta = |x, _weight, _residual, _call| x.clone())]
    fn norm_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        call: NormCall,
    ) -> FloatTensor<Self>;

    /// Columns as heads: see [`heads`].
    #[fusion(meta = |x, _weight, _cos, _sin, call| spec(call.dims, x.dtype))]
    fn split_heads(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        call: HeadsCall,
    ) -> FloatTensor<Self>;

    /// Logits to distribution, choice scores, experts and weights: see [`router`].
    #[fusion(meta = |logits, _correction, _scale, forced, call| router_specs(logits, forced, call))]
    fn route_tokens(
        logits: FloatTensor<Self>,
        correction: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        forced: IntTensor<Self>,
        call: RouterCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, IntTensor<Self>, FloatTensor<Self>);

    /// What a recorder keeps of a layer: see [`trace`].
    #[fusion(meta = |probs, _scores, experts, _weights| {
        spec([experts.shape[0], 2 * experts.shape[1] + 2], probs.dtype)
    })]
    fn trace_rows(
        probs: FloatTensor<Self>,
        scores: FloatTensor<Self>,
        experts: IntTensor<Self>,
        weights: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// `x [T, I]` times `weight [O, I]` transposed, both of one type, summed and returned in f32: `[T, O]`.
    #[fusion(meta = |x, weight| spec([x.shape[0], weight.shape[0]], DType::F32))]
    fn project_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Dot products to attention weights: see [`softmax`].
    #[fusion(meta = |dots, _sinks, _call| dots.clone())]
    fn softmax_rows(
        dots: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        call: SoftmaxCall,
    ) -> FloatTensor<Self>;

    /// One new token over cached keys and values, in one or two dispatches: see [`decode`].
    #[fusion(meta = |q, _k, _v, _sinks, call| {
        spec([q.shape[0], q.shape[1] * call.value_dim], q.dtype)
    })]
    fn attend_one(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        sinks: FloatTensor<Self>,
        call: DecodeCall,
    ) -> FloatTensor<Self>;
}

fn spec<const D: usize>(shape: [usize; D], dtype: DType) -> TensorSpec {
    TensorSpec::new(Shape::new(shape), dtype)
}

fn router_specs(
    logits: &TensorSpec,
    forced: &TensorSpec,
    call: &RouterCall,
) -> (TensorSpec, TensorSpec, TensorSpec, TensorSpec) {
    let ([t, e], k) = ([logits.shape[0], logits.shape[1]], call.top_k);
    let kept = call.scores_shape([t, e]);
    (
        spec([t, e], logits.dtype),
        spec(kept, logits.dtype),
        spec([t, k], forced.dtype),
        spec([t, k], logits.dtype),
    )
}

impl GpuOps for CubeBackend {
    fn norm_rows(
        x: CubeTensor,
        weight: CubeTensor,
        residual: CubeTensor,
        call: NormCall,
    ) -> CubeTensor {
        norm::launch(x, weight, residual, call)
    }

    fn split_heads(
        x: CubeTensor,
        weight: CubeTensor,
        cos: CubeTensor,
        sin: CubeTensor,
        call: HeadsCall,
    ) -> CubeTensor {
        heads::launch(x, weight, cos, sin, call)
    }

    fn route_tokens(
        logits: CubeTensor,
        correction: CubeTensor,
        scale: CubeTensor,
        forced: CubeTensor,
        call: RouterCall,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        router::launch(logits, correction, scale, forced, call)
    }

    fn trace_rows(
        probs: CubeTensor,
        scores: CubeTensor,
        experts: CubeTensor,
        weights: CubeTensor,
    ) -> CubeTensor {
        trace::launch(probs, scores, experts, weights)
    }

    fn project_rows(x: CubeTensor, mut weight: CubeTensor) -> CubeTensor {
        weight.meta.swap(0, 1);
        let product = matmul(x, weight, None, MatmulStrategy::default(), DType::F32);
        // The kernel that serves every size and type is among the strategies.
        product.expect("a product of two matrices of one type")
    }

    fn softmax_rows(dots: CubeTensor, sinks: CubeTensor, call: SoftmaxCall) -> CubeTensor {
        softmax::launch(dots, sinks, call)
    }

    fn attend_one(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        sinks: CubeTensor,
        call: DecodeCall,
    ) -> CubeTensor {
        decode::launch(q, k, v, sinks, call)
    }
}

/// A new tensor on the device of another.
fn empty<const D: usize>(like: &CubeTensor, shape: [usize; D], dtype: DType) -> CubeTensor {
    empty_device_dtype(like.client.clone(), like.device.clone(), Shape::new(shape), dtype)
}

/// `(residual + x / rms(x) * weight) * scale`, `[T, H]` all; without a residual or a weight the same without.
pub(super) fn norm_rows(
    x: Tensor<2>,
    weight: Option<&Tensor<1>>,
    residual: Option<Tensor<2>>,
    eps: f32,
    scale: f32,
) -> Tensor<2> {
    let call = NormCall { eps, scale, weighted: weight.is_some(), added: residual.is_some() };
    let x = x.into_dispatch();
    // What is absent is never read: any tensor stands for it.
    let weight = weight.map_or_else(|| x.clone(), |weight| weight.clone().into_dispatch());
    let residual = residual.map_or_else(|| x.clone(), Tensor::into_dispatch);
    Tensor::from_dispatch(Dispatch::norm_rows(x, weight, residual, call))
}

/// Columns of `x [T, *]` as heads, normalised and rotated: `[B, N, S, D]`. `weight [D]`; cosines and sines
/// `[*, R/2]`, as in [`crate::ops::rope::Rotation`].
pub(super) fn split_heads(
    x: Tensor<2>,
    weight: Option<&Tensor<1>>,
    table: Option<(&Tensor<2>, &Tensor<2>)>,
    call: HeadsCall,
) -> Tensor<4> {
    let x = x.into_dispatch();
    let weight = weight.map_or_else(|| x.clone(), |weight| weight.clone().into_dispatch());
    let (cos, sin) = table.map_or_else(
        || (x.clone(), x.clone()),
        |(cos, sin)| (cos.clone().into_dispatch(), sin.clone().into_dispatch()),
    );
    Tensor::from_dispatch(Dispatch::split_heads(x, weight, cos, sin, call))
}

/// What [`route_tokens`] returns: distribution `[T, E]`, choice scores `[T, E]` if they are kept, experts
/// `[T, K]`, weights `[T, K]`.
pub(super) type Routed = (Tensor<2>, Tensor<2>, Tensor<2, Int>, Tensor<2>);

/// Routes `logits [T, E]`; `correction [E]`, `scale [E]` and `forced [T, K]` where the call has them.
pub(super) fn route_tokens(
    logits: Tensor<2>,
    correction: Option<&Tensor<1>>,
    scale: Option<&Tensor<1>>,
    forced: Option<Tensor<2, Int>>,
    call: RouterCall,
) -> Routed {
    let forced = forced.unwrap_or_else(|| Tensor::empty([1, 1], (&logits.device(), DType::I32)));
    let logits = logits.into_dispatch();
    let or_none =
        |x: Option<&Tensor<1>>| x.map_or_else(|| logits.clone(), |x| x.clone().into_dispatch());
    let (correction, scale) = (or_none(correction), or_none(scale));
    let (probs, scores, experts, weights) =
        Dispatch::route_tokens(logits, correction, scale, forced.into_dispatch(), call);
    (
        Tensor::from_dispatch(probs),
        Tensor::from_dispatch(scores),
        Tensor::from_dispatch(experts),
        Tensor::from_dispatch(weights),
    )
}

/// Experts, weights, entropy and margin of each token, side by side: `[T, 2 K + 2]`. Ids are exact as f32.
pub(super) fn trace_rows(
    probs: Tensor<2>,
    scores: Option<Tensor<2>>,
    experts: Tensor<2, Int>,
    weights: Tensor<2>,
) -> Tensor<2> {
    let probs = probs.into_dispatch();
    let scores = scores.map_or_else(|| probs.clone(), Tensor::into_dispatch);
    let (experts, weights) = (experts.into_dispatch(), weights.into_dispatch());
    Tensor::from_dispatch(Dispatch::trace_rows(probs, scores, experts, weights))
}

/// `x [T, I]` times `weight [O, I]` transposed, summed and returned in f32, `[T, O]`: products of narrow
/// types that keep the range of f32.
pub(super) fn project_rows(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    let weight = weight.clone().into_dispatch();
    Tensor::from_dispatch(Dispatch::project_rows(x.into_dispatch(), weight))
}

/// `dots [B, Nkv, G S, L]` to attention weights; rows are the queries `[B, Nq, S]` in that order. `sinks [Nq]`.
pub(super) fn softmax_rows(
    dots: Tensor<4>,
    sinks: Option<&Tensor<1>>,
    call: SoftmaxCall,
) -> Tensor<4> {
    let dots = dots.into_dispatch();
    let sinks = sinks.map_or_else(|| dots.clone(), |sinks| sinks.clone().into_dispatch());
    Tensor::from_dispatch(Dispatch::softmax_rows(dots, sinks, call))
}

/// `q [B, Nq, 1, D]` over the first keys `k [B, Nkv, C, D]` and values `v [B, Nkv, C, *]`: `[B, Nq * Dv]`.
/// `sinks [Nq]`.
pub(super) fn attend_one(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    sinks: Option<&Tensor<1>>,
    call: DecodeCall,
) -> Tensor<2> {
    let q = q.into_dispatch();
    let sinks = sinks.map_or_else(|| q.clone(), |sinks| sinks.clone().into_dispatch());
    let (k, v) = (k.into_dispatch(), v.into_dispatch());
    Tensor::from_dispatch(Dispatch::attend_one(q, k, v, sinks, call))
}
