//! Decoding with the cache is the same computation as one pass over everything.

use burn::tensor::Device;
use moescope_model::{KvCache, LogitsFor, ModelError, MoeImpl, Unobserved};

use crate::common::{assert_close, fixture, floats, forward_all, ids, in_chunks, load_f32};

const FIXTURES: &[&str] = &[
    "gemma4-moe",
    "gemma4-dense",
    "gemma4-ple-kvshared",
    "deepseek-v3",
    "gemma3-dense",
    "glm4-moe",
    "gpt-oss",
    "mixtral",
    "olmoe",
    "qwen3-moe",
];

/// 60 tokens: far past the fixtures' window of 8.
fn tokens(batch: usize) -> Vec<u32> {
    (0..60 * batch as u32).map(|i| (i * i * 31 + i * 7 + 5) % 256).collect()
}

#[test]
fn decode_equals_one_full_pass_past_the_window() {
    for name in FIXTURES {
        let model = load_f32(&fixture(name), &Device::flex(), MoeImpl::Selected);
        for batch in [1, 3] {
            let tokens = tokens(batch);
            let full = forward_all(model.as_ref(), &tokens, batch, &mut Unobserved);
            for sizes in [&[1][..], &[5, 1], &[24, 1], &[8, 8, 1, 1, 7, 13, 1], &[16, 3]] {
                let chunked = in_chunks(model.as_ref(), &tokens, batch, sizes);
                assert_close(&chunked, &full, 1e-4, &format!("{name}, batch {batch}, {sizes:?}"));
            }
        }
    }
}

#[test]
fn last_logits_are_the_last_row() {
    let model = load_f32(&fixture("gemma4-moe"), &Device::flex(), MoeImpl::Selected);
    let (batch, tokens) = (2, tokens(2));
    let n = tokens.len() / batch;
    let vocab = model.spec().vocab;
    let full = forward_all(model.as_ref(), &tokens, batch, &mut Unobserved);
    let mut cache = KvCache::new(model.spec(), batch, n, model.device()).unwrap();
    let input = ids(&tokens, batch, model.device());
    let last = model.forward(input, &mut cache, &mut Unobserved, LogitsFor::Last).unwrap();
    let want: Vec<f32> =
        (1..=batch).flat_map(|b| &full[(b * n - 1) * vocab..b * n * vocab]).copied().collect();
    assert_close(&floats(last), &want, 1e-5, "last rows");
}

#[test]
fn a_full_cache_refuses_more() {
    let model = load_f32(&fixture("gemma4-moe"), &Device::flex(), MoeImpl::Selected);
    let mut cache = KvCache::new(model.spec(), 1, 4, model.device()).unwrap();
    let input = ids(&[1, 2, 3, 4, 5], 1, model.device());
    let error = model.forward(input, &mut cache, &mut Unobserved, LogitsFor::Last).unwrap_err();
    assert!(matches!(error, ModelError::ContextLength { tokens: 5, context: 4 }), "{error}");
    assert!(KvCache::new(model.spec(), 1, 257, model.device()).is_err(), "beyond the context");
}

#[test]
fn a_cleared_cache_starts_over() {
    let model = load_f32(&fixture("gemma4-moe"), &Device::flex(), MoeImpl::Selected);
    let tokens = tokens(1);
    let mut cache = KvCache::new(model.spec(), 1, 64, model.device()).unwrap();
    let run = |cache: &mut KvCache| {
        let input = ids(&tokens, 1, model.device());
        floats(model.forward(input, cache, &mut Unobserved, LogitsFor::All).unwrap())
    };
    let first = run(&mut cache);
    cache.clear();
    assert_eq!(run(&mut cache), first);
}

/// Back to any point, in a ring or before it wraps, the same tokens give the same logits; and later marks
/// are not disturbed by going back to them twice.
#[test]
fn a_rewound_cache_goes_on_as_before() {
    for name in FIXTURES {
        let model = load_f32(&fixture(name), &Device::flex(), MoeImpl::Selected);
        let batch = 2;
        let tokens = tokens(batch);
        let n = tokens.len() / batch;
        let part = |from: usize, to: usize| -> Vec<u32> {
            (0..batch).flat_map(|b| &tokens[b * n + from..b * n + to]).copied().collect()
        };
        // Capacities below, at and above the window.
        for (seen, more) in [(0, 6), (3, 4), (5, 3), (11, 14), (24, 30)] {
            let mut cache = KvCache::new(model.spec(), batch, seen + more, model.device()).unwrap();
            let run = |cache: &mut KvCache, from: usize, to: usize| {
                let input = ids(&part(from, to), batch, model.device());
                floats(model.forward(input, cache, &mut Unobserved, LogitsFor::Last).unwrap())
            };
            if seen > 0 {
                run(&mut cache, 0, seen);
            }
            let mark = cache.mark();
            let go_on = |cache: &mut KvCache| {
                let first = run(cache, seen, seen + more - 2);
                [
                    first,
                    run(cache, seen + more - 2, seen + more - 1),
                    run(cache, seen + more - 1, seen + more),
                ]
            };
            let want = go_on(&mut cache);
            for _ in 0..2 {
                cache.rewind(&mark);
                assert_eq!(cache.len(), seen);
                assert!(go_on(&mut cache) == want, "{name}: {seen} tokens and {more} more");
            }
        }
    }
}
