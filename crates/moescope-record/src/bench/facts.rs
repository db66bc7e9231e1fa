//! What a configuration does, however long it takes: from one pass that is observed and not timed.

use burn::tensor::{Int, Tensor};
use moescope_model::{
    Component, DType, KvCache, ModelSpec, MoeModel, Observer, Routing,
    footprint::{Distinct, PassShape, flops, traffic},
};
use moescope_trace::bench::{Configuration, Facts, LayerExperts};

use super::{pass::Inputs, rss::PeakRss, session::Arm, watch::Watch};
use crate::{
    error::Result,
    memory::MemoryMeter,
    recorder::{device as failed, read_experts},
    sampling::argmax,
};

/// Runs all passes of a configuration and keeps what they did. `rss` was started before the cache was filled.
pub(super) fn observe(
    Arm { model, dtype }: Arm<'_>,
    cache: &mut KvCache,
    inputs: &Inputs<'_>,
    configuration: &Configuration,
    rss: &mut PeakRss,
    outside: &Watch<'_>,
) -> Result<Facts> {
    let spec = model.spec();
    let mut within = Within::new(model);
    let mut loads: Vec<Load> = spec.moe.iter().map(|l| Load::new(l.experts)).collect();
    let [mut tokens, mut routing] = [(); 2].map(|()| blake3::Hasher::new());
    let mut facts = Facts::default();
    for number in 0..inputs.passes().len() {
        outside.go_on()?;
        let logits = inputs.passes().run(model, cache, number, &mut within)?;
        within.look();
        rss.look();
        let logits = logits.try_into_data().map_err(|e| failed(&e))?;
        let logits: Vec<f32> = logits.try_into_vec().map_err(|e| failed(&e))?;
        logits.chunks_exact(spec.vocab).for_each(|row| {
            tokens.update(&argmax(row).to_le_bytes());
        });
        let phase = usize::from(!inputs.is_prompt(number));
        let routed = std::mem::take(&mut within.pending);
        for (layer, experts) in read_experts(model.device(), routed)? {
            for id in &experts {
                routing.update(&id.to_le_bytes());
            }
            let at = spec.moe.iter().position(|moe| moe.layer == layer);
            if let Some(at) = at {
                loads[at].add(&experts, phase);
            }
        }
    }
    facts.tokens_hash = Some(short(&tokens));
    if !loads.is_empty() {
        facts.routing_hash = Some(short(&routing));
        facts.load_variation = mean(loads.iter().filter_map(Load::variation));
        // Those of decode passes, or of the prompt where there are none.
        let phase = usize::from(configuration.generate > 0);
        let together = match configuration.generate {
            0 => f64::from(configuration.batch) * f64::from(configuration.prompt),
            _ => f64::from(configuration.batch),
        };
        let layers = spec.moe.iter().zip(&loads).map(|(moe, load)| {
            let (experts, top_k) = (f64::from(moe.experts), f64::from(moe.top_k));
            let expected = experts * (1.0 - (1.0 - top_k / experts).powf(together));
            LayerExperts { layer: moe.layer, measured: load.distinct(phase), expected }
        });
        let layers: Vec<LayerExperts> = layers.collect();
        facts.distinct_experts = mean(layers.iter().map(|layer| layer.measured));
        facts.distinct_expected = mean(layers.iter().map(|layer| layer.expected));
        facts.distinct_by_layer = layers;
    }
    needs(&mut facts, spec, dtype, configuration, &loads);
    facts.peak_bytes_in_use = within.in_use;
    facts.peak_bytes_reserved = within.reserved;
    facts.peak_rss_bytes = rss.bytes();
    Ok(facts)
}

/// Bytes and operations the passes need, from the experts they touched. In [`Facts::other`] per phase:
/// `prefill_bytes_per_token`, `prefill_flops_per_token`, `decode_flops_per_token`.
fn needs(facts: &mut Facts, spec: &ModelSpec, dtype: DType, row: &Configuration, loads: &[Load]) {
    let [batch, prompt, generate, depth] =
        [row.batch, row.prompt, row.generate, row.depth].map(|n| n as usize);
    let distinct = |phase: usize| loads.iter().map(|l| l.distinct(phase)).collect::<Vec<_>>();
    if prompt > 0 {
        let pass = PassShape { batch, new: prompt, context: depth };
        let touched = distinct(0);
        let bytes = traffic(spec, dtype, pass, Distinct::Measured(&touched)).total();
        let tokens = pass.tokens() as f64;
        facts.other.insert("prefill_bytes_per_token".into(), bytes / tokens);
        facts.other.insert("prefill_flops_per_token".into(), flops(spec, pass).total() / tokens);
    }
    if generate > 0 {
        let touched = distinct(1);
        let passes = (0..generate).map(|i| PassShape::decode(batch, depth + prompt + i));
        let bytes = |pass| traffic(spec, dtype, pass, Distinct::Measured(&touched)).total();
        let tokens = (batch * generate) as f64;
        facts.bytes_per_token = Some(passes.clone().map(bytes).sum::<f64>() / tokens);
        let operations: f64 = passes.map(|pass| flops(spec, pass).total()).sum();
        facts.other.insert("decode_flops_per_token".into(), operations / tokens);
    }
}

/// Enough of a hash to tell results apart.
pub(super) fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Collects routing, and looks at the device's pools after every component.
struct Within {
    meter: MemoryMeter,
    pending: Vec<(u16, Tensor<2, Int>)>,
    in_use: Option<u64>,
    reserved: Option<u64>,
}

impl Within {
    fn new(model: &dyn MoeModel) -> Self {
        let meter = MemoryMeter::new(model.device());
        Within { meter, pending: Vec::new(), in_use: None, reserved: None }
    }

    fn look(&mut self) {
        let now = self.meter.pools();
        self.in_use = self.in_use.max(now.bytes_in_use);
        self.reserved = self.reserved.max(now.bytes_reserved);
    }
}

impl Observer for Within {
    fn routed(&mut self, routing: Routing) {
        self.pending.push((routing.layer, routing.experts));
    }

    fn component_done(&mut self, _layer: Option<u16>, _component: Component) {
        self.look();
    }
}

/// How often the experts of one layer were chosen.
struct Load {
    counts: Vec<u32>,
    /// Sum over passes of the experts they touched, and their number: prefill, decode.
    touched: [(u64, u64); 2],
}

impl Load {
    fn new(experts: u16) -> Self {
        Load { counts: vec![0; usize::from(experts)], touched: [(0, 0); 2] }
    }

    fn add(&mut self, experts: &[u16], phase: usize) {
        let mut seen = vec![false; self.counts.len()];
        for &id in experts {
            self.counts[usize::from(id)] += 1;
            seen[usize::from(id)] = true;
        }
        self.touched[phase].0 += seen.iter().filter(|seen| **seen).count() as u64;
        self.touched[phase].1 += 1;
    }

    /// Mean number of experts a pass of a phase touches.
    fn distinct(&self, phase: usize) -> f64 {
        let (touched, passes) = self.touched[phase];
        touched as f64 / passes.max(1) as f64
    }

    /// Population standard deviation of the tokens per expert over their mean.
    fn variation(&self) -> Option<f64> {
        let counts = self.counts.iter().map(|&count| f64::from(count));
        let mean = mean(counts.clone()).filter(|mean| *mean > 0.0)?;
        let squares = counts.map(|count| (count - mean).powi(2)).sum::<f64>();
        Some((squares / self.counts.len() as f64).sqrt() / mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_by_hand() {
        let mut load = Load::new(4);
        load.add(&[0, 1, 0, 2], 1);
        load.add(&[0, 1], 1);
        load.add(&[3, 3], 0);
        // Counts 3, 2, 1, 2: mean 2, variance 1/2.
        assert_eq!(load.counts, [3, 2, 1, 2]);
        assert_eq!((load.distinct(0), load.distinct(1)), (1.0, 2.5));
        assert!((load.variation().unwrap() - 0.5f64.sqrt() / 2.0).abs() < 1e-12);
        assert_eq!(Load::new(4).variation(), None);
    }
}
