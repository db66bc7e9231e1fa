//! Experts that tokens use whatever their router chooses: how a recorded run is replayed.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::{
    error::{ModelError, Result},
    spec::MoeLayerSpec,
};

/// Experts of the tokens of one pass in one layer, on a device.
///
/// Checked when it is made, so that a pass need not look at them.
#[derive(Clone, Debug)]
pub struct ForcedExperts {
    layer: MoeLayerSpec,
    /// `[T, K]`, i32, in rank order.
    ids: Tensor<2, Int>,
}

impl ForcedExperts {
    /// Uploads `ids`, K per token in rank order, for tokens in the order of a pass (sequence after sequence).
    ///
    /// # Errors
    ///
    /// [`ModelError::Forced`]: not K ids per token, an id beyond the layer's experts, or a token that has
    /// an expert twice.
    pub fn new(ids: &[u16], layer: &MoeLayerSpec, device: &Device) -> Result<Self> {
        let (experts, k) = (layer.experts, usize::from(layer.top_k));
        let wrong = |reason: String| ModelError::Forced { layer: layer.layer, reason };
        if k == 0 || ids.is_empty() || !ids.len().is_multiple_of(k) {
            let reason = format!("expected {k} experts for each token, found {} in all", ids.len());
            return Err(wrong(reason));
        }
        for (token, chosen) in ids.chunks_exact(k).enumerate() {
            if let Some(id) = chosen.iter().find(|id| **id >= experts) {
                let reason = format!("token {token} has expert {id}; there are {experts}");
                return Err(wrong(reason));
            }
            let twice = |(rank, id): (usize, &u16)| chosen[..rank].contains(id);
            if chosen.iter().enumerate().any(twice) {
                let reason = format!("token {token} has an expert twice: {chosen:?}");
                return Err(wrong(reason));
            }
        }
        let values: Vec<i32> = ids.iter().map(|&id| i32::from(id)).collect();
        let data = TensorData::new(values, [ids.len() / k, k]);
        Ok(ForcedExperts { layer: *layer, ids: Tensor::from_data(data, (device, DType::I32)) })
    }

    /// The ids for a pass of `tokens` tokens through `layer`.
    ///
    /// # Errors
    ///
    /// [`ModelError::Forced`] where they were made for another layer or number of tokens.
    pub(crate) fn take(self, layer: &MoeLayerSpec, tokens: usize) -> Result<Tensor<2, Int>> {
        let [made_for, _] = self.ids.dims();
        let what = |l: &MoeLayerSpec, tokens: usize| {
            let MoeLayerSpec { layer, experts, top_k, .. } = l;
            format!("{tokens} tokens in layer {layer} with {top_k} of {experts} experts")
        };
        if self.layer == *layer && made_for == tokens {
            return Ok(self.ids);
        }
        let (own, asked) = (what(&self.layer, made_for), what(layer, tokens));
        let reason = format!("made for {own}, the pass has {asked}");
        Err(ModelError::Forced { layer: layer.layer, reason })
    }
}
