//! Cache curves: known answers, and every one-pass curve against a simulation size by size.

use moescope_analysis::LayerData;
use moescope_analysis::NO_EXPERT;
use moescope_analysis::rng::Rng;
use moescope_analysis::simulate::cache::{
    Belady, Fixed, Future, Hits, LayerRequests, Lfu, Lru, ModelRequests, Requests, Start,
    belady_hits,
};
use proptest::prelude::*;

use crate::support::uniformly;

/// Hits by size of all policies: LRU, LFU, fixed, Belady from empty, Belady loaded.
fn curves(requests: &impl Requests, counts: &[f64]) -> [Vec<u64>; 5] {
    let keys = requests.keys();
    let mut hits = [(); 5].map(|()| Hits::new(keys, 1));
    let [lru, lfu, fixed, empty, loaded] = &mut hits;
    Lru::new(keys).run(requests, |_, depths| lru.add(depths));
    Lfu::new(keys).run(requests, |_, depths| lfu.add(depths));
    Fixed::most_used(counts).run(requests, |_, depths| fixed.add(depths));
    let future = Future::of(requests);
    Belady::new().run(&future, Start::Empty, |_, depths| empty.add(depths));
    Belady::new().run(&future, Start::Loaded, |_, depths| loaded.add(depths));
    hits.map(|hits| hits.curve())
}

/// The rule, size by size: after each request keep the `size` of what is held and what was requested
/// that `value` ranks highest, (request, key) to its rank.
fn plain(
    requests: &[Vec<u32>],
    mut held: Vec<u32>,
    size: usize,
    value: impl Fn(usize, u32) -> (u64, u64),
) -> u64 {
    let mut hits = 0;
    for (at, request) in requests.iter().enumerate() {
        hits += request.iter().filter(|key| held.contains(key)).count() as u64;
        held.extend(request);
        held.sort_unstable();
        held.dedup();
        held.sort_by_key(|&key| std::cmp::Reverse(value(at, key)));
        held.truncate(size);
    }
    hits
}

/// When a key was used last, up to request `at`: later requests, and lower ranks of them, are more.
fn recency(requests: &[Vec<u32>], at: usize, key: u32) -> u64 {
    let used = (0..=at).rev().find_map(|at| {
        let rank = requests[at].iter().position(|&k| k == key)?;
        Some((at as u64 + 1) * 100 - rank as u64)
    });
    used.unwrap_or(0)
}

fn uses(requests: &[Vec<u32>], at: usize, key: u32) -> u64 {
    requests[..=at].iter().filter(|request| request.contains(&key)).count() as u64
}

/// The request that needs a key next, after `at`.
fn next(requests: &[Vec<u32>], at: usize, key: u32) -> u64 {
    let later = requests[at + 1..].iter().position(|request| request.contains(&key));
    later.map_or(u64::MAX, |distance| distance as u64)
}

fn plain_curves(requests: &[Vec<u32>], keys: usize, counts: &[f64]) -> [Vec<u64>; 5] {
    let mut preferred: Vec<u32> = (0..keys as u32).collect();
    preferred.sort_by(|&a, &b| counts[b as usize].total_cmp(&counts[a as usize]));
    let mut soonest: Vec<u32> = (0..keys as u32).collect();
    let first = |key: u32| requests.iter().position(|request| request.contains(&key));
    soonest.sort_by_key(|&key| first(key).unwrap_or(usize::MAX));
    let of = |curve: &dyn Fn(usize) -> u64| (1..=keys).map(curve).collect::<Vec<u64>>();
    let belady = |at, key| (u64::MAX - next(requests, at, key), 0);
    [
        of(&|size| plain(requests, vec![], size, |at, key| (recency(requests, at, key), 0))),
        of(&|size| {
            plain(requests, vec![], size, |at, key| {
                (uses(requests, at, key), recency(requests, at, key))
            })
        }),
        of(&|size| {
            let held = preferred[..size].to_vec();
            let place = |key| preferred.iter().position(|&k| k == key).unwrap() as u64;
            plain(requests, held, size, |_, key| (u64::MAX - place(key), 0))
        }),
        of(&|size| plain(requests, vec![], size, belady)),
        of(&|size| plain(requests, soonest[..size].to_vec(), size, belady)),
    ]
}

/// The most hits any policy can have that may keep any part of what it holds and what was requested,
/// by trying everything; `held` is a set of bits.
fn best(requests: &[Vec<u32>], held: u32, size: u32) -> u32 {
    let Some((request, rest)) = requests.split_first() else {
        return 0;
    };
    let wanted: u32 = request.iter().map(|key| 1 << key).sum();
    let at_hand = held | wanted;
    let keeps = (0..=at_hand).filter(|keep| keep & !at_hand == 0 && keep.count_ones() <= size);
    let after = keeps.map(|keep| best(rest, keep, size)).max().unwrap();
    (held & wanted).count_ones() + after
}

/// Ids `[T, k]` of k distinct experts per token, skewed and with repeats so that the policies differ.
fn any_layer(experts: usize, tokens: usize) -> impl Strategy<Value = (usize, usize, Vec<u16>)> {
    (1..=experts, 0..tokens, any::<u64>(), 0u8..3).prop_flat_map(|(experts, tokens, seed, kind)| {
        (1..=experts).prop_map(move |top_k| {
            let mut rng = Rng::new(seed);
            let mut ids: Vec<u16> = Vec::new();
            for _ in 0..tokens {
                let mut chosen = Vec::new();
                match kind {
                    1 if ids.len() >= top_k && rng.unit() < 0.5 => {
                        chosen.extend(ids[ids.len() - top_k..].iter().take(top_k / 2 + 1));
                    }
                    2 if rng.unit() < 0.7 => chosen.push(rng.below(experts.div_ceil(3)) as u16),
                    _ => {}
                }
                uniformly(&mut rng, experts, top_k, &mut chosen);
                ids.extend(chosen);
            }
            (experts, top_k, ids)
        })
    })
}

fn sets(requests: &impl Requests) -> Vec<Vec<u32>> {
    let mut keys = Vec::new();
    (0..requests.len())
        .map(|at| {
            requests.read(at, &mut keys);
            keys.clone()
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn one_pass_is_every_size((experts, top_k, ids) in any_layer(9, 60), seed in any::<u64>()) {
        let requests = LayerRequests::new(&ids, top_k, experts);
        let mut rng = Rng::new(seed);
        let counts: Vec<f64> = (0..experts).map(|_| rng.below(4) as f64).collect();
        let found = curves(&requests, &counts);
        prop_assert_eq!(&found, &plain_curves(&sets(&requests), experts, &counts));
        let [lru, lfu, fixed, empty, loaded] = &found;
        for size in 0..experts {
            prop_assert!(lru[size] <= empty[size] && lfu[size] <= empty[size]);
            prop_assert!(fixed[size] <= loaded[size] && empty[size] <= loaded[size]);
            for curve in &found {
                prop_assert!(size == 0 || curve[size - 1] <= curve[size]);
            }
        }
        let distinct = sets(&requests).concat().into_iter().collect::<std::collections::HashSet<_>>();
        for curve in [lru, lfu, empty] {
            prop_assert_eq!(curve[experts - 1] as usize, ids.len() - distinct.len(), "cold misses");
        }
        for curve in [fixed, loaded] {
            prop_assert_eq!(curve[experts - 1] as usize, ids.len());
        }
    }

    #[test]
    fn a_few_sizes_at_once_are_the_stack(
        (experts, top_k, ids) in any_layer(70, 40),
        step in 1usize..20,
    ) {
        let requests = LayerRequests::new(&ids, top_k, experts);
        let [_, _, _, empty, loaded] = curves(&requests, &vec![0.0; experts]);
        let future = Future::of(&requests);
        for (start, curve) in [(Start::Empty, &empty), (Start::Loaded, &loaded)] {
            // Beyond all experts too, where nothing more can be hit.
            let sizes: Vec<usize> = (1..=experts + step).step_by(step).collect();
            let expected: Vec<u64> = sizes.iter().map(|size| curve[*size.min(&experts) - 1]).collect();
            prop_assert_eq!(belady_hits(&future, start, &sizes), expected, "{:?}", start);
            for size in [1, experts.div_ceil(2), experts] {
                prop_assert_eq!(belady_hits(&future, start, &[size]), [curve[size - 1]]);
            }
        }
        prop_assert_eq!(belady_hits(&future, Start::Loaded, &[]), Vec::<u64>::new());
        prop_assert_eq!(belady_hits(&future, Start::Loaded, &[0, 0]), [0, 0]);
    }
}

proptest! {
    // Trying everything takes its time.
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_beats_belady((experts, top_k, ids) in any_layer(4, 6)) {
        let requests = LayerRequests::new(&ids, top_k, experts);
        let [_, _, _, empty, loaded] = curves(&requests, &vec![0.0; experts]);
        let sets = sets(&requests);
        for size in 1..=experts {
            prop_assert_eq!(empty[size - 1], u64::from(best(&sets, 0, size as u32)));
            let starts = (0u32..1 << experts).filter(|held| held.count_ones() <= size as u32);
            let most = starts.map(|held| best(&sets, held, size as u32)).max().unwrap();
            prop_assert_eq!(loaded[size - 1], u64::from(most));
        }
    }
}

/// Enough requests for the list of the LRU order to be packed many times, and for groups of words.
#[test]
fn many_keys_against_plain_simulation() {
    let (experts, top_k) = (700, 5);
    let mut rng = Rng::new(3);
    let mut ids = Vec::new();
    for _ in 0..1500 {
        let mut chosen = vec![rng.below(20) as u16];
        uniformly(&mut rng, experts, top_k, &mut chosen);
        ids.extend(chosen);
    }
    let requests = LayerRequests::new(&ids, top_k, experts);
    let mut lru = Hits::new(experts, 1);
    Lru::new(experts).run(&requests, |_, depths| lru.add(depths));
    let mut lfu = Hits::new(experts, 1);
    Lfu::new(experts).run(&requests, |_, depths| lfu.add(depths));
    // Orders kept as plain vectors, most valued first.
    let (mut recent, mut frequent): (Vec<u32>, Vec<u32>) = (vec![], vec![]);
    let mut count = vec![0; experts];
    let (mut lru_plain, mut lfu_plain) = (Hits::new(experts, 1), Hits::new(experts, 1));
    for request in sets(&requests) {
        let depth = |order: &[u32], key| {
            order.iter().position(|&k| k == key).map_or(u32::MAX, |depth| depth as u32)
        };
        lru_plain.add(&request.iter().map(|&key| depth(&recent, key)).collect::<Vec<_>>());
        lfu_plain.add(&request.iter().map(|&key| depth(&frequent, key)).collect::<Vec<_>>());
        for &key in request.iter().rev() {
            recent.retain(|&k| k != key);
            recent.insert(0, key);
            count[key as usize] += 1;
            frequent.retain(|&k| k != key);
            let behind = frequent.iter().position(|&k| count[k as usize] <= count[key as usize]);
            frequent.insert(behind.unwrap_or(frequent.len()), key);
        }
    }
    assert_eq!(lru, lru_plain);
    assert_eq!(lfu, lfu_plain);
}

#[test]
fn a_sequence_that_repeats() {
    // Experts 0, 1, 2, 0, 1, 2, ...: LRU of two always drops the one needed next.
    let ids: Vec<u16> = (0..300).map(|token| token % 3).collect();
    let requests = LayerRequests::new(&ids, 1, 3);
    let [lru, lfu, _, empty, loaded] = curves(&requests, &[0.0; 3]);
    assert_eq!(lru, [0, 0, 297]);
    // Before a use all three have the same count or the others one more: with ties to the recent
    // one, the one needed is last.
    assert_eq!(lfu, [0, 0, 297]);
    // A place kept for an expert until it comes again serves one request in three; three places
    // lose only the first uses.
    assert_eq!(empty, [99, 198, 297]);
    assert_eq!(loaded, [100, 200, 300]);
}

#[test]
fn a_token_looks_up_before_it_inserts() {
    // {0, 1}, {1, 2}: the second token's 1 hits in any cache that kept it; 0 is rank 0 and stays
    // alone in a cache of one.
    let requests = LayerRequests::new(&[0, 1, 1, 2], 2, 3);
    let [lru, ..] = curves(&requests, &[0.0; 3]);
    assert_eq!(lru, [0, 1, 1]);
    let requests = LayerRequests::new(&[1, 0, 1, 2], 2, 3);
    let [lru, ..] = curves(&requests, &[0.0; 3]);
    assert_eq!(lru, [1, 1, 1]);
}

#[test]
fn layers_of_a_model_share_a_cache() {
    let layers = [
        LayerData::from_ids(0, 2, 1, vec![0, 0, 1]),
        LayerData::from_ids(4, 3, 2, vec![2, 1, 2, 1, 0, NO_EXPERT]),
    ];
    let requests = ModelRequests::of(&layers, 0..3);
    assert_eq!(sets(&requests), [vec![0], vec![4, 3], vec![0], vec![4, 3], vec![1], vec![2]]);
    assert_eq!(requests.keys(), 5);
    let mut hits = Hits::new(2, 2);
    Lru::new(5).run(&requests, |_, depths| hits.add(depths));
    // The second 0 lies behind 4 and 3; then 4 lies behind 0, and 3 behind both.
    assert_eq!((hits.curve(), hits.requests()), (vec![1, 3], 8));
    assert_eq!(sets(&ModelRequests::of(&layers, 2..3)), [vec![1], vec![2]]);
}

#[test]
fn hostile_ids() {
    // An expert named twice, one beyond E, an empty row, no tokens, no experts.
    let requests = LayerRequests::new(&[1, 1, 9, 0, NO_EXPERT, NO_EXPERT], 2, 2);
    assert_eq!(sets(&requests), [vec![1], vec![0], vec![]]);
    let [lru, lfu, fixed, empty, loaded] = curves(&requests, &[2.0, 1.0]);
    assert_eq!((lru, lfu, empty), (vec![0, 0], vec![0, 0], vec![0, 0]));
    assert_eq!((fixed, loaded), (vec![1, 2], vec![1, 2]));
    let none = LayerRequests::new(&[], 0, 0);
    assert!(none.is_empty());
    assert!(curves(&none, &[]).iter().all(Vec::is_empty));
}
