//! A model cut to its first layers, at true width: a machine too small for all of it measures some.

use serde_json::{Map, Value};

use super::Checkpoint;
use crate::error::{ModelError, Result};

/// The first `kept` of `of` layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayersKept {
    /// Layers kept.
    pub kept: usize,
    /// Layers of the whole model.
    pub of: usize,
}

impl LayersKept {
    /// Whether a tensor, by its full name, belongs to a layer that is not kept.
    pub(crate) fn cuts(self, name: &str) -> bool {
        let index = || {
            let (_, rest) = name.split_once("layers.")?;
            rest.split_once('.')?.0.parse::<usize>().ok()
        };
        index().is_some_and(|layer| layer >= self.kept)
    }
}

impl Checkpoint {
    /// Keeps the first `layers` layers of the model and forgets the others.
    ///
    /// # Errors
    ///
    /// [`ModelError::Layers`] if there are none or not so many, [`ModelError::Config`] if the config does not
    /// tell how many there are.
    pub fn keep_layers(&mut self, layers: usize) -> Result<()> {
        let text = match self.config.get_mut("text_config") {
            Some(Value::Object(text)) => text,
            _ => &mut self.config,
        };
        let found = text.get("num_hidden_layers");
        let of = found.and_then(Value::as_u64).ok_or_else(|| ModelError::Config {
            path: self.config_path.clone(),
            key: "num_hidden_layers".into(),
            expected: "a number of layers".into(),
            found: found.map_or_else(|| "nothing".into(), Value::to_string),
        })?;
        // More layers than fit a usize can't be kept either.
        let of = usize::try_from(of).unwrap_or(usize::MAX);
        if layers == 0 || layers > of {
            return Err(ModelError::Layers {
                layers,
                reason: format!("the model has {of} layers; give 1 to {of}"),
            });
        }
        if layers < of {
            cut(text, layers, of);
            self.layers = Some(LayersKept { kept: layers, of });
        }
        Ok(())
    }

    /// The layers kept, where [`Checkpoint::keep_layers`] left some out.
    pub fn layers_kept(&self) -> Option<LayersKept> {
        self.layers
    }

    /// Layers of the whole model, of which `kept` are described by the config as it is now.
    pub(crate) fn whole_layers(&self, kept: usize) -> usize {
        self.layers.map_or(kept, |layers| layers.of)
    }
}

/// Rewrites what a config says per layer.
fn cut(text: &mut Map<String, Value>, kept: usize, of: usize) {
    text.insert("num_hidden_layers".into(), kept.into());
    // One entry per layer.
    for key in ["layer_types", "mlp_layer_types", "intermediate_size"] {
        if let Some(Value::Array(list)) = text.get_mut(key) {
            list.truncate(kept);
        }
    }
    // Indices of layers.
    let inside = |index: &Value| index.as_u64().is_some_and(|index| index < kept as u64);
    if let Some(Value::Array(list)) = text.get_mut("mlp_only_layers") {
        list.retain(inside);
    }
    if let Some(Value::Object(layers)) = text.get_mut("per_layer_config") {
        layers.retain(|index, _| index.parse::<usize>().is_ok_and(|index| index < kept));
    }
    // Leading layers.
    if let Some(dense) = text.get("first_k_dense_replace").and_then(Value::as_u64) {
        text.insert("first_k_dense_replace".into(), dense.min(kept as u64).into());
    }
    // Trailing layers, which use the keys and values of the ones before them.
    if let Some(shared) = text.get("num_kv_shared_layers").and_then(Value::as_u64) {
        let own = (of as u64).saturating_sub(shared);
        text.insert("num_kv_shared_layers".into(), (kept as u64).saturating_sub(own).into());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cut_to(kept: usize, of: usize, mut config: Value) -> Value {
        let Value::Object(map) = &mut config else { panic!("not an object") };
        cut(map, kept, of);
        config
    }

    #[test]
    fn everything_per_layer_is_cut() {
        let config = json!({
            "num_hidden_layers": 4, "layer_types": ["a", "b", "a", "b"], "mlp_only_layers": [1, 3],
            "first_k_dense_replace": 3, "num_kv_shared_layers": 2, "hidden_size": 8,
            "per_layer_config": {"1": {"head_dim": 2}, "3": {"head_dim": 2}},
        });
        assert_eq!(
            cut_to(2, 4, config.clone()),
            json!({
                "num_hidden_layers": 2, "layer_types": ["a", "b"], "mlp_only_layers": [1],
                "first_k_dense_replace": 2, "num_kv_shared_layers": 0, "hidden_size": 8,
                "per_layer_config": {"1": {"head_dim": 2}},
            })
        );
        assert_eq!(cut_to(3, 4, config)["num_kv_shared_layers"], 1);
    }

    #[test]
    fn tensors_of_other_layers_are_known_by_name() {
        let layers = LayersKept { kept: 2, of: 30 };
        assert!(layers.cuts("model.language_model.layers.2.mlp.gate_proj.weight"));
        assert!(layers.cuts("model.layers.29.layer_scalar"));
        assert!(!layers.cuts("model.layers.1.layer_scalar"));
        assert!(!layers.cuts("model.embed_tokens.weight"));
    }
}
