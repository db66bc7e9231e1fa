//! Synthetic runs.

use moescope_analysis::rng::Rng;
use moescope_analysis::{LayerData, Options, RunData, StepSeries};
use moescope_trace::Phase;

/// Shape of a synthetic run.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) domains: &'static [&'static str],
    pub(crate) sequences_per_domain: usize,
    pub(crate) tokens: usize,
    pub(crate) layers: u16,
    pub(crate) experts: usize,
    pub(crate) top_k: usize,
}

pub(crate) const SMALL: Shape = Shape {
    domains: &["english", "rust", "japanese"],
    sequences_per_domain: 15,
    tokens: 40,
    layers: 2,
    experts: 16,
    top_k: 2,
};

/// Few resamples, for tests that do not look at intervals.
pub(crate) const FAST: Options = Options { resamples: 50, seed: 7 };

/// A run whose tokens take `choose(domain, layer, position, rng, experts)`, ids in rank order.
pub(crate) fn run(
    shape: Shape,
    seed: u64,
    mut choose: impl FnMut(usize, u16, usize, &mut Rng, &mut Vec<u16>),
) -> RunData {
    let sequences: Vec<(&str, usize)> = shape
        .domains
        .iter()
        .flat_map(|&domain| std::iter::repeat_n((domain, shape.tokens), shape.sequences_per_domain))
        .collect();
    let mut rng = Rng::new(seed);
    let layers = (0..shape.layers)
        .map(|layer| {
            let mut ids = Vec::with_capacity(sequences.len() * shape.tokens * shape.top_k);
            let mut chosen = Vec::with_capacity(shape.top_k);
            for domain in 0..shape.domains.len() {
                for at in 0..shape.sequences_per_domain * shape.tokens {
                    chosen.clear();
                    choose(domain, layer, at % shape.tokens, &mut rng, &mut chosen);
                    assert_eq!(chosen.len(), shape.top_k);
                    ids.extend(&chosen);
                }
            }
            LayerData::from_ids(layer, shape.experts, shape.top_k, ids)
        })
        .collect();
    let mut data = RunData::from_ids("synthetic", &sequences, layers).unwrap();
    // All of these read the same prompts.
    data.manifest.prompts_hash = "synthetic".to_owned();
    data
}

/// Fills up `chosen` to k distinct experts below `experts`, all equally likely.
pub(crate) fn uniformly(rng: &mut Rng, experts: usize, top_k: usize, chosen: &mut Vec<u16>) {
    while chosen.len() < top_k {
        let expert = rng.below(experts) as u16;
        if !chosen.contains(&expert) {
            chosen.push(expert);
        }
    }
}

/// Uniform, independent routing.
pub(crate) fn uniform(shape: Shape, seed: u64) -> RunData {
    run(shape, seed, |_, _, _, rng, chosen| uniformly(rng, shape.experts, shape.top_k, chosen))
}

/// Gives the tokens ids from 1 to `ids`, all equally likely.
pub(crate) fn with_token_ids(data: &mut RunData, ids: usize, seed: u64) {
    let mut rng = Rng::new(!seed);
    data.tokens.token_id.fill_with(|| 1 + rng.below(ids) as u32);
}

/// Forward passes of (phase, tokens, nanoseconds); memory not recorded.
pub(crate) fn steps(passes: &[(Phase, u32, u64)]) -> StepSeries {
    StepSeries {
        step: (0..passes.len() as u32).collect(),
        phase: passes.iter().map(|pass| pass.0).collect(),
        batch: vec![1; passes.len()],
        tokens: passes.iter().map(|pass| pass.1).collect(),
        context: vec![0; passes.len()],
        duration_ns: passes.iter().map(|pass| pass.2).collect(),
        device_ns: vec![None; passes.len()],
        bytes_in_use: vec![None; passes.len()],
        bytes_reserved: vec![None; passes.len()],
        rss_bytes: vec![None; passes.len()],
    }
}

#[track_caller]
pub(crate) fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "found {found}, expected {expected}");
}
