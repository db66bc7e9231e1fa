//! The statistics against SciPy, against published series and against what they promise.

use moescope_analysis::rng::Rng;
use moescope_analysis::stats::{
    Alternative, ChangeOptions, Distribution, adjust, changes, divergence, mann_whitney, median,
    median_interval, quantile, ratio_of, ratio_of_pairs, signed_rank, upper_tail,
};
use proptest::prelude::*;
use serde_json::Value;

/// Made by `tests/fixtures/scipy_stats.py`.
fn scipy(group: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../fixtures/scipy_stats.json")).unwrap();
    let cases = all[group].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn close(found: f64, expected: &Value, what: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-10 * expected.abs(), "{found} != {expected}: {what}");
}

const SIDES: [(&str, Alternative); 3] = [
    ("two_sided", Alternative::TwoSided),
    ("greater", Alternative::Greater),
    ("less", Alternative::Less),
];

#[test]
fn mann_whitney_is_scipys() {
    for case in scipy("mann_whitney") {
        let (x, y) = (numbers(&case["x"]), numbers(&case["y"]));
        for (name, side) in SIDES {
            let test = mann_whitney(&x, &y, side).unwrap();
            assert_eq!(test.distribution == Distribution::Exact, case["exact"], "{case}");
            close(test.statistic, &case["u"], &case);
            close(test.p, &case[name], &case);
        }
    }
}

#[test]
fn signed_rank_is_scipys() {
    for case in scipy("signed_rank") {
        let differences = numbers(&case["d"]);
        for (name, side) in SIDES {
            let test = signed_rank(&differences, side).unwrap();
            assert_eq!(test.distribution == Distribution::Exact, case["exact"], "{case}");
            close(test.statistic, &case["w"], &case);
            close(test.p, &case[name], &case);
        }
    }
}

#[test]
fn adjusted_p_and_tails_are_scipys() {
    for case in scipy("adjust") {
        for (found, expected) in
            adjust(&numbers(&case["p"])).iter().zip(case["adjusted"].as_array().unwrap())
        {
            close(*found, expected, &case);
        }
    }
    for case in scipy("upper_tail") {
        close(upper_tail(case[0].as_f64().unwrap()), &case[1], &case);
    }
    assert!(adjust(&[]).is_empty());
}

/// Benjamini and Hochberg's own example (1995, section 3.2): 15 p-values, of which their procedure at 5 %
/// finds four and Bonferroni's three.
#[test]
fn the_published_example_of_false_discoveries() {
    let p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
        0.5719, 0.6528, 0.7590, 1.0000,
    ];
    assert_eq!(adjust(&p).iter().filter(|p| **p <= 0.05).count(), 4);
    assert_eq!(p.iter().filter(|p| **p * 15.0 <= 0.05).count(), 3);
}

#[test]
fn samples_that_say_nothing() {
    for side in [Alternative::TwoSided, Alternative::Greater, Alternative::Less] {
        assert!(mann_whitney(&[], &[1.0], side).is_none());
        assert!(mann_whitney(&[1.0], &[f64::NAN], side).is_none());
        assert_eq!(mann_whitney(&[2.0; 8], &[2.0; 9], side).unwrap().p, 1.0);
        assert!(signed_rank(&[0.0; 5], side).is_none());
        assert!(signed_rank(&[1.0, f64::NAN], side).is_none());
    }
    assert!(ratio_of(&[], &[1.0]).is_none());
    assert!(ratio_of(&[1.0], &[0.0]).is_none());
    assert!(ratio_of_pairs(&[]).is_none());
    assert!(ratio_of_pairs(&[(-1.0, -2.0)]).is_none());
    // Too few for an interval, enough for a value.
    assert!(ratio_of(&[1.0; 4], &[2.0; 4]).unwrap().interval.is_none());
    assert_eq!(median(&mut []), None);
    assert!(quantile(&[], 0.5).is_nan());
    assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
}

#[test]
fn ratios_by_definition() {
    for case in scipy("ratio") {
        let (base, new) = (numbers(&case["base"]), numbers(&case["new"]));
        close(ratio_of(&base, &new).unwrap().value, &case["value"], &case);
    }
    // Walsh averages of ln 1, ln 2, ln 8 are ln of 1, 2, 8, √2, √8, 4.
    let pairs = [(1.0, 1.0), (3.0, 6.0), (0.5, 4.0)];
    let middle = (2f64.ln() + 8f64.ln() / 2.0) / 2.0;
    assert!((ratio_of_pairs(&pairs).unwrap().value - middle.exp()).abs() < 1e-12);
}

/// Of a thousand 95 % intervals at least about 950 hold the true ratio (less four standard deviations of
/// the binomial distribution), for few and for more samples, for independent ones and for pairs; and not
/// nearly all of them do, as of intervals that are too wide. (Two independent samples take the widening
/// of the smaller one, which errs on the safe side: 97.8 and 98.0 % here.)
#[test]
fn intervals_cover_the_true_ratio() {
    const TRIALS: usize = 1000;
    let slack = 4.0 * (0.95 * 0.05 / TRIALS as f64).sqrt();
    let mut rng = Rng::new(11);
    for (n, m) in [(5, 5), (8, 12)] {
        let (mut independent, mut paired) = (0, 0);
        for _ in 0..TRIALS {
            // Times as they are: a floor and a long tail.
            let mut time = |scale: f64| scale * (1.0 + (0.3 * rng.normal() - 2.0).exp());
            let base: Vec<f64> = (0..n).map(|_| time(3.0)).collect();
            let new: Vec<f64> = (0..m).map(|_| time(3.3)).collect();
            let holds = |interval: Option<(f64, f64)>| {
                let (low, high) = interval.unwrap();
                usize::from(low <= 1.1 && 1.1 <= high)
            };
            independent += holds(ratio_of(&base, &new).unwrap().interval);
            let pairs: Vec<(f64, f64)> = (0..n).map(|_| (time(3.0), time(3.3))).collect();
            paired += holds(ratio_of_pairs(&pairs).unwrap().interval);
        }
        for (what, held) in [("independent", independent), ("paired", paired)] {
            let share = held as f64 / TRIALS as f64;
            assert!(share >= 0.95 - slack && share <= 0.99, "{n} and {m}, {what}: {share}");
        }
    }
}

/// Neighbours of a busy machine's samples resemble each other: here each keeps `kept` of what disturbed the one
/// before (autoregressive noise). Intervals of single samples would hold the truth in less than half of the
/// cases at 0.9; and where nothing is kept they are not much too wide.
#[test]
fn intervals_see_that_neighbours_resemble_each_other() {
    let mut rng = Rng::new(12);
    let mut series = |count: usize, kept: f64| {
        let mut state = rng.normal();
        let mut next = || {
            state = kept * state + (1.0 - kept * kept).sqrt() * rng.normal();
            (0.1 * state).exp()
        };
        (0..count).map(|_| next()).collect::<Vec<f64>>()
    };
    let share = |trials: usize, interval: &mut dyn FnMut() -> Option<(f64, f64)>| {
        let held = (0..trials).filter(|_| {
            let (low, high) = interval().unwrap();
            low <= 1.0 && 1.0 <= high
        });
        held.count() as f64 / trials as f64
    };
    for (kept, least) in [(0.0, 0.94), (0.7, 0.88), (0.9, 0.77)] {
        let median = share(400, &mut || median_interval(&series(100, kept)));
        println!("{kept} kept, median: {median}");
        assert!(median >= least && median <= 0.995, "{kept} kept: {median}");
    }
    let ratio = share(150, &mut || ratio_of(&series(40, 0.7), &series(40, 0.7)).unwrap().interval);
    println!("0.7 kept, ratio: {ratio}");
    assert!((0.8..=0.995).contains(&ratio), "{ratio}");
}

/// Intervals for the median of as few samples as a bench takes by default: of independent ones, with tails short and
/// long, 95 % and more hold it. Where each sample keeps 0.7 or 0.9 of what disturbed the one before, so few can't
/// tell, and fewer intervals do; the bounds are what they reach less four standard deviations of the binomial
/// distribution, so that they get no worse unseen.
#[test]
fn intervals_of_few_samples_cover_the_median() {
    const TRIALS: usize = 1000;
    let slack = |share: f64| 4.0 * (share * (1.0 - share) / TRIALS as f64).sqrt();
    let mut rng = Rng::new(13);
    let mut share = |count: usize, truth: f64, draw: &mut dyn FnMut(&mut Rng) -> Vec<f64>| {
        let held = (0..TRIALS).filter(|_| {
            let values = draw(&mut rng);
            assert_eq!(values.len(), count);
            let (low, high) = median_interval(&values).unwrap();
            low <= truth && truth <= high
        });
        held.count() as f64 / TRIALS as f64
    };
    for count in [5, 8] {
        for tail in [0.3, 1.0] {
            // Times as they are: a floor and a tail; half of them lie below 1 + e^-2.
            let mut times = |rng: &mut Rng| {
                (0..count).map(|_| 1.0 + (tail * rng.normal() - 2.0).exp()).collect()
            };
            let held = share(count, 1.0 + (-2f64).exp(), &mut times);
            println!("{count} samples, tail {tail}: {held}");
            assert!(held >= 0.95 - slack(0.95) && held <= 0.995, "{count}, tail {tail}: {held}");
        }
    }
    for (count, kept, reached) in [(5, 0.7, 0.81), (5, 0.9, 0.55), (8, 0.7, 0.70), (8, 0.9, 0.44)] {
        let mut neighbours = |rng: &mut Rng| {
            let mut state = rng.normal();
            let mut next = || {
                state = kept * state + f64::sqrt(1.0 - kept * kept) * rng.normal();
                (0.1 * state).exp()
            };
            (0..count).map(|_| next()).collect()
        };
        let held = share(count, 1.0, &mut neighbours);
        println!("{count} samples, {kept} kept: {held}");
        assert!(held >= reached - slack(reached), "{count}, {kept} kept: {held}");
    }
}

/// Annual flow of the Nile at Aswan, 1871 to 1970 (G. Cobb, "The problem of the Nile", 1978): it fell
/// in 1899, after 28 values.
const NILE: [u16; 100] = [
    1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960, 1180,
    799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694, 940, 833,
    701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845,
    864, 862, 698, 845, 744, 796, 1040, 759, 781, 865, 845, 944, 984, 897, 822, 1010, 771, 676,
    649, 846, 812, 742, 801, 1040, 860, 874, 848, 890, 744, 749, 838, 1050, 918, 986, 797, 923,
    975, 815, 1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
];

#[test]
fn the_nile_changes_in_1899() {
    let series: Vec<f64> = NILE.iter().map(|&flow| f64::from(flow)).collect();
    let found = changes(&series, &ChangeOptions::default());
    assert_eq!(found.iter().map(|change| 1871 + change.index).collect::<Vec<_>>(), [1899]);
    // What two other implementations of the paper find (Apache Otava 0.8.0's value).
    assert!((found[0].divergence - 4_916.590_807_675_146).abs() < 1e-8, "{found:?}");
    // That is over the end which shows the change best.
    let by_end = (29..=100).map(|end| divergence(&series[..28], &series[28..end]));
    assert!((found[0].divergence - by_end.fold(0.0, f64::max)).abs() < 1e-8);
}

/// With every shuffle allowed and single values as parts, the first split is the other implementation's.
#[test]
fn splits_are_those_of_another_implementation() {
    for case in scipy("split") {
        let series = numbers(&case["series"]);
        let options =
            ChangeOptions { significance: 1.0, permutations: 0, min_size: 1, ..Default::default() };
        let all = changes(&series, &options);
        // Everything is split in the end, and each change keeps the divergence it was found with.
        let (index, expected) = (case["index"].as_u64().unwrap() as usize, &case["divergence"]);
        let first = all.iter().find(|change| change.index == index).unwrap();
        close(first.divergence, expected, &case);
    }
}

#[test]
fn changes_that_are_there_are_found() {
    let mut rng = Rng::new(5);
    // 100, then 8 % slower for a while, then faster than before; 2 % noise.
    let level = |at: usize| {
        if at < 20 {
            100.0
        } else if at < 34 {
            108.0
        } else {
            95.0
        }
    };
    let series: Vec<f64> = (0..60).map(|at| level(at) * (1.0 + 0.02 * rng.normal())).collect();
    let found: Vec<usize> =
        changes(&series, &ChangeOptions::default()).iter().map(|change| change.index).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].abs_diff(20) <= 1 && found[1].abs_diff(34) <= 1, "{found:?}");
    // A long series is searched at its end, and indices stay those of the whole.
    let long: Vec<f64> = std::iter::repeat_n(100.0, 1500).chain([130.0; 20]).collect();
    let options = ChangeOptions { permutations: 99, ..Default::default() };
    let found = changes(&long, &options);
    assert_eq!(found.iter().map(|change| change.index).collect::<Vec<_>>(), [1500]);
}

/// At 1 % about one series of noise in a hundred has a change: at most 8 of 200 (p = 0.0003 at 1 %).
#[test]
fn noise_rarely_changes() {
    let mut rng = Rng::new(77);
    let options = ChangeOptions { permutations: 199, ..Default::default() };
    let alarms = (0..200)
        .filter(|_| {
            let series: Vec<f64> = (0..30).map(|_| (0.1 * rng.normal()).exp()).collect();
            !changes(&series, &options).is_empty()
        })
        .count();
    assert!(alarms <= 8, "{alarms}");
    assert!(changes(&[4.0; 40], &options).is_empty());
    assert!(changes(&[1.0, 2.0], &options).is_empty());
    assert!(changes(&[1.0, f64::NAN, 3.0, 1.0, 1.0, 9.0], &options).is_empty());
}

fn sample() -> impl Strategy<Value = Vec<f64>> {
    // From few values, so that there are ties.
    prop::collection::vec((1u8..40).prop_map(f64::from), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    /// Exchanging the samples turns the question round; scaling time changes no rank and no ratio.
    #[test]
    fn symmetry_and_scale(x in sample(), y in sample(), scale in 0.001f64..1000.0) {
        let greater = mann_whitney(&x, &y, Alternative::Greater).unwrap();
        let less = mann_whitney(&y, &x, Alternative::Less).unwrap();
        prop_assert!((greater.p - less.p).abs() < 1e-12);
        prop_assert!(greater.p > 0.0 && greater.p <= 1.0);
        let both = mann_whitney(&x, &y, Alternative::TwoSided).unwrap();
        prop_assert!(both.p <= 2.0 * greater.p.min(less.p.max(greater.p)) + 1e-12);
        let scaled = |values: &[f64]| values.iter().map(|v| v * scale).collect::<Vec<_>>();
        let (there, back) = (ratio_of(&x, &y).unwrap(), ratio_of(&y, &x).unwrap());
        prop_assert!((there.value * back.value - 1.0).abs() < 1e-9);
        let same = ratio_of(&scaled(&x), &scaled(&y)).unwrap();
        prop_assert!((same.value / there.value - 1.0).abs() < 1e-9);
        if let Some((low, high)) = there.interval {
            prop_assert!(low <= there.value * (1.0 + 1e-9) && there.value <= high * (1.0 + 1e-9));
        }
        let pairs: Vec<(f64, f64)> = x.iter().copied().zip(y.iter().copied()).collect();
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
        let turned: Vec<f64> = differences.iter().map(|d| -d).collect();
        let p = |d: &[f64], side| signed_rank(d, side).map(|test| test.p);
        prop_assert_eq!(p(&differences, Alternative::Greater), p(&turned, Alternative::Less));
    }

    /// Adjusted values are never below the raw ones, keep their order and stay within 1.
    #[test]
    fn adjusted_p_keep_their_order(p in prop::collection::vec(0.0f64..=1.0, 1..30)) {
        let adjusted = adjust(&p);
        for (i, a) in p.iter().enumerate() {
            prop_assert!(adjusted[i] >= *a && adjusted[i] <= 1.0);
            for (j, b) in p.iter().enumerate() {
                prop_assert!(a >= b || adjusted[i] <= adjusted[j]);
            }
        }
    }

    /// Changes lie inside the series, in order, at least `min_size` apart.
    #[test]
    fn changes_are_in_order(series in prop::collection::vec((0u8..9).prop_map(f64::from), 0..40)) {
        let options = ChangeOptions { permutations: 49, significance: 0.1, ..Default::default() };
        let found = changes(&series, &options);
        let mut last = 0;
        for change in &found {
            prop_assert!(change.index >= last + 3 && change.index + 3 <= series.len());
            prop_assert!(change.p > 0.0 && change.p <= 0.1);
            last = change.index;
        }
    }
}
