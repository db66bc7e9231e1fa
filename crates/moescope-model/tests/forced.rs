//! Experts forced upon a pass: the router's own change nothing, others are what runs.

use std::collections::HashMap;

use burn::tensor::{Device, DeviceKind, Tensor};
use moescope_model::{
    Component, ForcedExperts, KvCache, LogitsFor, ModelError, MoeImpl, MoeLayerSpec, MoeModel,
    Observer, Routing, Unobserved,
};

use crate::common::{
    Everything, Expected, assert_close, fixture, floats, forward_all, ids, in_chunks, load_f32,
};

const FAMILIES: &[&str] = &[
    "deepseek-v3",
    "gemma4-moe",
    "gemma4-moe-multimodal-sharded",
    "glm4-moe",
    "gpt-oss",
    "gpt-oss-mxfp4",
    "mixtral",
    "olmoe",
    "qwen3-moe",
];

/// Forces experts and watches.
struct Forcing<'a> {
    experts: HashMap<u16, ForcedExperts>,
    seen: &'a mut Everything,
    order: Vec<(u16, usize)>,
}

impl Observer for Forcing<'_> {
    fn forced_experts(&mut self, layer: u16, tokens: usize) -> Option<ForcedExperts> {
        self.order.push((layer, tokens));
        self.experts.get(&layer).cloned()
    }

    fn routed(&mut self, routing: Routing) {
        self.seen.routed(routing);
    }

    fn component_done(&mut self, _: Option<u16>, _: Component) {}

    fn layer_done(&mut self, layer: u16, hidden: &Tensor<2>) {
        self.seen.layer_done(layer, hidden);
    }
}

/// One pass with experts of every layer forced.
fn forced_pass(
    model: &dyn MoeModel,
    tokens: &[u32],
    batch: usize,
    experts: &[Vec<u16>],
) -> (Vec<f32>, Everything) {
    let make = |(layer, ids): (&MoeLayerSpec, &Vec<u16>)| {
        (layer.layer, ForcedExperts::new(ids, layer, model.device()).unwrap())
    };
    let experts = model.spec().moe.iter().zip(experts).map(make).collect();
    let mut seen = Everything::default();
    let mut forcing = Forcing { experts, seen: &mut seen, order: Vec::new() };
    let logits = forward_all(model, tokens, batch, &mut forcing);
    let layers = model.spec().moe.iter().map(|l| (l.layer, tokens.len()));
    assert_eq!(forcing.order, layers.collect::<Vec<_>>());
    (logits, seen)
}

fn as_recorded(seen: &Everything) -> Vec<Vec<u16>> {
    seen.routed.iter().map(|r| r.experts.iter().map(|&e| e as u16).collect()).collect()
}

fn family(folder: &str, device: &Device, tolerance: f32) {
    let expected = Expected::read(folder);
    let model = load_f32(&fixture(folder), device, MoeImpl::Selected);
    let (input, shape) = expected.ints("input_ids");
    let mut free = Everything::default();
    let want = forward_all(model.as_ref(), &input, shape[0], &mut free);

    let (logits, seen) = forced_pass(model.as_ref(), &input, shape[0], &as_recorded(&free));
    assert_close(&logits, &want, tolerance, folder);
    for (got, want) in seen.routed.iter().zip(&free.routed) {
        assert_eq!(got.experts, want.experts, "{folder}");
        assert_close(&got.weights, &want.weights, tolerance, folder);
    }

    // Every expert's neighbour, turned about: other experts in another order.
    let other: Vec<Vec<u16>> = free
        .routed
        .iter()
        .map(|r| {
            let next = |e: &u32| ((e + 1) % r.e as u32) as u16;
            r.experts.chunks(r.k).flat_map(|row| row.iter().rev().map(next)).collect()
        })
        .collect();
    let (logits, seen) = forced_pass(model.as_ref(), &input, shape[0], &other);
    assert_eq!(as_recorded(&seen), other, "{folder}");
    assert!(logits.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-3), "{folder}: same logits");
    assert!(logits.iter().all(|x| x.is_finite()), "{folder}");
    // The first layer sees the same rows as before: what its router would choose has not changed, and
    // the weights are its scores at the forced experts.
    assert_close(&seen.routed[0].scores, &free.routed[0].scores, tolerance, folder);
}

#[test]
fn forcing_the_routers_own_experts_changes_nothing() {
    for folder in FAMILIES {
        family(folder, &Device::flex(), 0.0);
    }
}

/// Groups, a correction and a scale: every part of a rule is in DeepSeek-V3's.
#[test]
fn forced_experts_on_wgpu() {
    family("deepseek-v3", &Device::wgpu(DeviceKind::DefaultDevice), 1e-5);
}

/// The weights of forced experts follow the family's rule, written out here for softmax routers.
#[test]
fn weights_are_the_routers_scores() {
    for (folder, renormalise) in [("qwen3-moe", true), ("mixtral", true), ("olmoe", false)] {
        let model = load_f32(&fixture(folder), &Device::flex(), MoeImpl::Selected);
        let config = std::fs::read_to_string(fixture(folder).join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let renormalise = config["norm_topk_prob"].as_bool().unwrap_or(renormalise);
        let tokens: Vec<u32> = (1..8).collect();
        let experts: Vec<Vec<u16>> = model
            .spec()
            .moe
            .iter()
            .map(|l| {
                (0..tokens.len())
                    .flat_map(|t| (0..l.top_k).map(move |k| (k + t as u16) % l.experts))
                    .collect()
            })
            .collect();
        let (_, seen) = forced_pass(model.as_ref(), &tokens, 1, &experts);
        for routed in &seen.routed {
            for (t, probs) in routed.scores.chunks(routed.e).enumerate() {
                let at = t * routed.k..(t + 1) * routed.k;
                let chosen: Vec<f32> =
                    routed.experts[at.clone()].iter().map(|&e| probs[e as usize]).collect();
                let norm = if renormalise { chosen.iter().sum() } else { 1.0 };
                let want: Vec<f32> = chosen.iter().map(|p| p / norm).collect();
                assert_close(&routed.weights[at], &want, 1e-5, folder);
            }
        }
    }
}

/// A decode pass forces as a prefill does: token by token is the same as all at once.
#[test]
fn forced_decode_passes() {
    struct ByPass<'a>(Vec<Vec<ForcedExperts>>, usize, &'a [MoeLayerSpec]);
    impl Observer for ByPass<'_> {
        fn forced_experts(&mut self, layer: u16, _: usize) -> Option<ForcedExperts> {
            let slot = self.2.iter().position(|l| l.layer == layer).unwrap();
            Some(self.0[self.1][slot].clone())
        }
        fn step_done(&mut self, _: &Tensor<2>) {
            self.1 += 1;
        }
    }
    let model = load_f32(&fixture("qwen3-moe"), &Device::flex(), MoeImpl::Selected);
    let moe = model.spec().moe.clone();
    let tokens: Vec<u32> = (3..15).collect();
    let of = |l: &MoeLayerSpec, t: usize| {
        (0..l.top_k).map(|k| (k + t as u16) % l.experts).collect::<Vec<_>>()
    };
    let all = |l: &MoeLayerSpec| (0..tokens.len()).flat_map(|t| of(l, t)).collect();
    let (want, _) =
        forced_pass(model.as_ref(), &tokens, 1, &moe.iter().map(all).collect::<Vec<_>>());
    let pass =
        |t| moe.iter().map(|l| ForcedExperts::new(&of(l, t), l, model.device()).unwrap()).collect();
    let mut observer = ByPass((0..tokens.len()).map(pass).collect(), 0, &moe);
    let mut cache = KvCache::new(model.spec(), 1, tokens.len(), model.device()).unwrap();
    let vocab = model.spec().vocab;
    for (token, want) in tokens.iter().zip(want.chunks(vocab)) {
        let input = ids(&[*token], 1, model.device());
        let logits = model.forward(input, &mut cache, &mut observer, LogitsFor::Last).unwrap();
        assert_close(&floats(logits), want, 1e-4, "logits");
    }
    // Unforced routing differs: the test would not pass by accident.
    let free = in_chunks(model.as_ref(), &tokens, 1, &[1]);
    assert!(free.iter().zip(&want).any(|(a, b)| (a - b).abs() > 1e-3));
}

#[test]
fn experts_that_can_not_be_forced_are_refused() {
    let model = load_f32(&fixture("qwen3-moe"), &Device::flex(), MoeImpl::Selected);
    let device = model.device();
    let layer = model.spec().moe[0];
    let (k, e) = (layer.top_k, layer.experts);
    let row: Vec<u16> = (0..k).collect();
    let says = |result: Result<ForcedExperts, ModelError>, words: &[&str]| {
        let message = result.unwrap_err().to_string();
        for word in words.iter().chain(&[&*format!("layer {}", layer.layer)]) {
            assert!(message.contains(word), "{message}");
        }
    };
    says(ForcedExperts::new(&[], &layer, device), &["found 0"]);
    says(ForcedExperts::new(&row[1..], &layer, device), &["each token"]);
    let mut beyond = [row.clone(), row.clone()].concat();
    beyond[usize::from(k)] = e;
    says(ForcedExperts::new(&beyond, &layer, device), &["token 1", &format!("expert {e}")]);
    says(ForcedExperts::new(&vec![0; usize::from(k)], &layer, device), &["token 0", "twice"]);

    // Made for another number of tokens, another layer, another shape.
    struct Wrong(ForcedExperts);
    impl Observer for Wrong {
        fn forced_experts(&mut self, _: u16, _: usize) -> Option<ForcedExperts> {
            Some(self.0.clone())
        }
    }
    let last = *model.spec().moe.last().unwrap();
    let wider = MoeLayerSpec { top_k: k + 1, ..layer };
    let cases = [
        (ForcedExperts::new(&row, &layer, device), "3 tokens"),
        (ForcedExperts::new(&row.repeat(3), &last, device), &*format!("in layer {}", last.layer)),
        (
            ForcedExperts::new(
                &(0..3 * (k + 1)).map(|i| i % (k + 1)).collect::<Vec<_>>(),
                &wider,
                device,
            ),
            &*format!("with {} of", k + 1),
        ),
    ];
    for (forced, says) in cases {
        let mut cache = KvCache::new(model.spec(), 1, 8, device).unwrap();
        let mut wrong = Wrong(forced.unwrap());
        let result =
            model.forward(ids(&[1, 2, 3], 1, device), &mut cache, &mut wrong, LogitsFor::Last);
        let message = result.unwrap_err().to_string();
        assert!(message.contains("experts forced in layer") && message.contains(says), "{message}");
        // The model and the cleared cache go on.
        cache.clear();
        let input = ids(&[1, 2, 3], 1, device);
        model.forward(input, &mut cache, &mut Unobserved, LogitsFor::Last).unwrap();
    }
}
