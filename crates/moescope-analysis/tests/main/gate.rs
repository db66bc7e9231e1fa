//! The gate on measurements with known answers.

use std::collections::BTreeMap;

use moescope_analysis::gate::{
    Across, Evidence, GateError, GateOptions, Look, Outcome, Pair, Verdict, judge, judge_pairs,
};
use moescope_analysis::rng::Rng;
use moescope_trace::bench::{
    BENCH_KIND, BENCH_SCHEMA_VERSION, BenchResult, BenchRow, Configuration, Facts, Sample,
};
use moescope_trace::fingerprint::{Autotune, Fingerprint, MachineState};
use moescope_trace::manifest::{
    DeviceInfo, DeviceType, HostInfo, LayersKept, ModelInfo, MoeShape, Weights,
};

fn fingerprint() -> Fingerprint {
    Fingerprint {
        model: ModelInfo {
            name: "m".into(),
            source: "m".into(),
            architecture: "A".into(),
            config_hash: "c".into(),
            weights_hash: "w".into(),
            dtype: "f32".into(),
            quantisation: None,
            total_parameters: 10,
            active_parameters: 5,
            bytes: 40,
            weights: Weights::Trained,
            layers_kept: None,
            rumour: false,
            injected: None,
        },
        moe: MoeShape::default(),
        moe_impl: "selected".into(),
        device: DeviceInfo {
            backend: "flex".into(),
            adapter: "cpu".into(),
            driver: None,
            driver_version: None,
            vendor_id: None,
            device_id: None,
            device_type: DeviceType::Cpu,
            limits: Default::default(),
        },
        host: HostInfo {
            cpu: "cpu".into(),
            cores: 2,
            threads: Some(2),
            ram_bytes: 1 << 34,
            os: "os".into(),
        },
        moescope_version: "1".into(),
        git_commit: Some("abc".into()),
        state: MachineState::default(),
        autotune: Autotune::default(),
    }
}

fn prompt_bytes(bytes: f64) -> BTreeMap<String, f64> {
    [("prefill_bytes_per_token".to_owned(), bytes)].into()
}

/// A bench of two rows whose times are around 1 ms and 2 ms per token, `slow` times as long, with 2 %
/// of noise.
fn bench(samples: usize, slow: impl Fn(usize) -> f64, rng: &mut Rng) -> BenchResult {
    let row = |prompt, base_ns: f64, rng: &mut Rng| BenchRow {
        configuration: Configuration {
            workload: "text".into(),
            prompt,
            generate: 8,
            depth: 0,
            batch: 1,
        },
        error: None,
        cold: None,
        warm_ups: 2,
        samples: (0..samples)
            .map(|at| {
                let mut ns = |tokens: f64| {
                    (base_ns * tokens * slow(at) * (0.02 * rng.normal()).exp()) as u64
                };
                Sample {
                    at_ns: at as u64,
                    prefill_ns: Some(ns(f64::from(prompt))),
                    decode_ns: (0..8).map(|_| ns(1.0)).collect(),
                    joules: None,
                    process: 0,
                }
            })
            .collect(),
        facts: Facts {
            tokens_hash: Some("t".into()),
            routing_hash: Some("r".into()),
            load_variation: Some(0.5),
            peak_bytes_in_use: Some(1000),
            bytes_per_token: Some(5000.0),
            dispatches: Some(12.0),
            other: prompt_bytes(700.0),
            ..Facts::default()
        },
        energy: None,
    };
    BenchResult {
        kind: BENCH_KIND.into(),
        schema_version: BENCH_SCHEMA_VERSION,
        id: "i".into(),
        created_at: "2026-07-01T00:00:00Z".into(),
        command: vec![],
        fingerprint: fingerprint(),
        peaks: None,
        workload_hash: None,
        energy: None,
        rows: vec![row(16, 1e6, rng), row(64, 2e6, rng)],
    }
}

fn evidence(bench: &BenchResult) -> Evidence {
    Evidence::of_bench("file", std::slice::from_ref(bench)).unwrap()
}

fn compare(base: &BenchResult, new: &BenchResult) -> Verdict {
    let options = GateOptions::default();
    judge(&evidence(base), &evidence(new), None, &options, Across::default()).unwrap()
}

fn outcomes(verdict: &Verdict, hard: bool) -> Vec<Outcome> {
    verdict.checks.iter().filter(|check| check.hard == hard).map(|check| check.outcome).collect()
}

#[test]
fn the_same_twice_passes() {
    let mut rng = Rng::new(1);
    let (base, new) = (bench(10, |_| 1.0, &mut rng), bench(10, |_| 1.0, &mut rng));
    let verdict = compare(&base, &new);
    assert!(!verdict.regressed, "{verdict:?}");
    // Two rows of seven facts and two times.
    assert_eq!(outcomes(&verdict, true), vec![Outcome::Passed; 14]);
    assert_eq!(outcomes(&verdict, false), vec![Outcome::Passed; 4]);
}

/// A pass says how much could have hidden in the noise.
#[test]
fn what_noise_could_hide_is_said() {
    let mut rng = Rng::new(5);
    let (calm, same) = (bench(10, |_| 1.0, &mut rng), bench(10, |_| 1.0, &mut rng));
    let notes = |verdict: &Verdict| -> Vec<String> {
        verdict.checks.iter().filter(|c| !c.hard).filter_map(|c| c.note.clone()).collect()
    };
    assert!(notes(&compare(&calm, &same)).is_empty());
    // Samples take from one to almost three times as long.
    let noisy = |rng: &mut Rng| bench(12, |at| 1.0 + (at * 5 % 12) as f64 / 6.0, rng);
    let verdict = compare(&noisy(&mut rng), &noisy(&mut rng));
    assert!(!verdict.regressed, "{verdict:?}");
    let said = notes(&verdict);
    assert_eq!(said.len(), 4);
    assert!(
        said.iter().all(|note| note.starts_with("noisy: a slow-down of less than")),
        "{said:?}"
    );
}

#[test]
fn a_tenth_slower_fails_and_a_tenth_faster_is_said() {
    let mut rng = Rng::new(2);
    let base = bench(10, |_| 1.0, &mut rng);
    let slow = bench(10, |_| 1.10, &mut rng);
    let verdict = compare(&base, &slow);
    assert!(verdict.regressed);
    assert_eq!(outcomes(&verdict, false), vec![Outcome::Regressed; 4]);
    let check = &verdict.checks[0];
    let (low, high) = check.interval.unwrap();
    assert!(low > 1.05 && low < 1.1 && high > 1.1 && check.p.unwrap() < 0.001, "{check:?}");
    assert!(check.note.as_ref().unwrap().contains("agree"), "{check:?}");
    let verdict = compare(&slow, &base);
    assert!(!verdict.regressed);
    assert_eq!(outcomes(&verdict, false), vec![Outcome::Improved; 4]);
}

#[test]
fn certain_and_small_is_no_regression() {
    let mut rng = Rng::new(3);
    let base = bench(60, |_| 1.0, &mut rng);
    let verdict = compare(&base, &bench(60, |_| 1.03, &mut rng));
    assert!(!verdict.regressed);
    assert!(verdict.checks.iter().filter(|c| !c.hard).all(|c| c.p.unwrap() < 0.01));
}

#[test]
fn a_disturbance_in_one_half_is_suspected_only() {
    let mut rng = Rng::new(4);
    let base = bench(18, |_| 1.0, &mut rng);
    let new = bench(18, |at| if at < 8 { 1.0 } else { 1.4 }, &mut rng);
    let verdict = compare(&base, &new);
    assert!(!verdict.regressed, "{verdict:?}");
    assert_eq!(outcomes(&verdict, false), vec![Outcome::Suspected; 4]);
    // More samples do not make it more certain.
    let long = bench(60, |at| if at < 27 { 1.0 } else { 1.4 }, &mut rng);
    assert!(!compare(&bench(60, |_| 1.0, &mut rng), &long).regressed);

    // The same with a second pair of files: they decide.
    let slow = bench(18, |_| 1.2, &mut rng);
    let options = GateOptions::default();
    let again = |second: &BenchResult| {
        let retry = (&evidence(&base), &evidence(second));
        let (base, new) = (evidence(&base), evidence(&new));
        judge(&base, &new, Some(retry), &options, Across::default()).unwrap()
    };
    assert!(again(&slow).regressed);
    assert!(!again(&base).regressed);
}

#[test]
fn facts_fail_without_statistics() {
    let mut rng = Rng::new(5);
    let base = bench(5, |_| 1.0, &mut rng);
    type Change = fn(&mut Facts);
    let changes: [(&str, Change, Outcome); 11] = [
        ("tokens", |f| f.tokens_hash = Some("other".into()), Outcome::Regressed),
        ("routing", |f| f.routing_hash = Some("other".into()), Outcome::Regressed),
        ("routing", |f| f.routing_hash = None, Outcome::Undecided),
        ("balance", |f| f.load_variation = Some(0.51), Outcome::Regressed),
        ("balance", |f| f.load_variation = Some(0.49), Outcome::Regressed),
        ("peak_bytes", |f| f.peak_bytes_in_use = Some(1011), Outcome::Regressed),
        ("peak_bytes", |f| f.peak_bytes_in_use = Some(900), Outcome::Improved),
        ("bytes_per_token", |f| f.bytes_per_token = Some(5006.0), Outcome::Regressed),
        ("prefill_bytes_per_token", |f| f.other = prompt_bytes(701.0), Outcome::Regressed),
        ("prefill_bytes_per_token", |f| f.other.clear(), Outcome::Undecided),
        ("dispatches", |f| f.dispatches = Some(13.0), Outcome::Regressed),
    ];
    for (metric, change, expected) in changes {
        let mut new = base.clone();
        change(&mut new.rows[1].facts);
        let verdict = compare(&base, &new);
        let check = verdict
            .checks
            .iter()
            .find(|check| check.metric == metric && check.row.contains("pp64"))
            .unwrap();
        assert_eq!(check.outcome, expected, "{check:?}");
        if expected == Outcome::Undecided {
            assert!(check.note.as_ref().unwrap().contains("one side only"), "{check:?}");
            assert!(verdict.headline().contains("1 undecided"), "{}", verdict.headline());
        }
        assert_eq!(verdict.regressed, expected == Outcome::Regressed, "{metric}");
        // Nothing else moved.
        let others = verdict.checks.iter().filter(|c| *c != check);
        assert!(others.into_iter().all(|c| c.outcome == Outcome::Passed), "{metric}");
        let ignored = GateOptions { ignore: vec![metric.into()], ..GateOptions::default() };
        let verdict = judge(&evidence(&base), &evidence(&new), None, &ignored, Across::default());
        assert!(!verdict.unwrap().regressed, "{metric} was to be ignored");
    }
    // A row that no longer completes.
    let mut new = base.clone();
    new.rows[0].error = Some("out of memory".into());
    assert!(compare(&base, &new).regressed);
}

#[test]
fn few_samples_decide_nothing() {
    let mut rng = Rng::new(6);
    let verdict = compare(&bench(4, |_| 1.0, &mut rng), &bench(4, |_| 3.0, &mut rng));
    assert_eq!(outcomes(&verdict, false), vec![Outcome::Undecided; 4]);
    assert!(verdict.checks[0].note.as_ref().unwrap().contains("4 samples"), "{verdict:?}");
}

#[test]
fn other_conditions_do_not_compare() {
    let mut rng = Rng::new(7);
    let base = bench(5, |_| 1.0, &mut rng);
    let with = |change: fn(&mut BenchResult), across| {
        let mut new = base.clone();
        change(&mut new);
        judge(&evidence(&base), &evidence(&new), None, &GateOptions::default(), across)
    };
    let error = with(|new| new.fingerprint.model.dtype = "bf16".into(), Across::default());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("dtype: f32 against bf16") && error.contains("--across-models"),
        "{error}"
    );
    let cut = LayersKept { kept: 2, of: 30 };
    let error = {
        let mut new = base.clone();
        new.fingerprint.model.layers_kept = Some(cut);
        judge(&evidence(&base), &evidence(&new), None, &GateOptions::default(), Across::default())
    };
    let error = error.unwrap_err().to_string();
    assert!(error.contains("layers: all against 2 of 30"), "{error}");
    let driver: fn(&mut BenchResult) = |new| new.fingerprint.device.driver = Some("next".into());
    let error = with(driver, Across { models: true, devices: false }).unwrap_err().to_string();
    assert!(error.contains("driver") && error.contains("--across-devices"), "{error}");
    let verdict = with(driver, Across { models: false, devices: true }).unwrap();
    assert!(verdict.notes[0].contains("unknown against next"), "{:?}", verdict.notes);
    let state = with(
        |new| new.fingerprint.state.cpu_governor = Some("powersave".into()),
        Across::default(),
    );
    assert!(state.unwrap().notes[0].contains("powersave"));
    // Another commit is what a gate is for.
    let commit = with(|new| new.fingerprint.git_commit = Some("def".into()), Across::default());
    assert!(commit.unwrap().notes.is_empty());
    let rows = with(
        |new| new.rows.iter_mut().for_each(|row| row.configuration.batch = 2),
        Across::default(),
    );
    assert!(matches!(rows, Err(GateError::Rows { .. })));
    let one = with(|new| new.rows.truncate(1), Across::default()).unwrap();
    assert!(one.notes[0].contains("pp64"), "{:?}", one.notes);
}

/// Single measurements of one value each, as commands run in pairs give them.
fn pairs(count: usize, slow: f64, rng: &mut Rng) -> Vec<Pair> {
    (0..count)
        .map(|_| {
            // What the machine does meanwhile meets both.
            let weather = (0.2 * rng.normal()).exp();
            let base = evidence(&bench(1, |_| weather, rng));
            (base, evidence(&bench(1, |_| weather * slow, rng)))
        })
        .collect()
}

/// The gate on these pairs and, where it asks again, on those; no more of either.
fn judged(first: &[Pair], second: Option<&[Pair]>) -> Verdict {
    let mut looks = [Some(first.to_vec()), second.map(<[Pair]>::to_vec)];
    let measure =
        |look, _| -> Result<_, GateError> { Ok(looks[usize::from(look == Look::Second)].take()) };
    judge_pairs(measure, &GateOptions::default(), Across::default()).unwrap()
}

#[test]
fn pairs_see_through_the_weather() {
    let mut rng = Rng::new(8);
    let mut gate = |slow: f64, second: f64| {
        let (first, again) = (pairs(10, slow, &mut rng), pairs(10, second, &mut rng));
        judged(&first, Some(&again))
    };
    assert!(!gate(1.0, 1.0).regressed);
    let verdict = gate(1.10, 1.10);
    assert!(verdict.regressed, "{verdict:?}");
    let verdict = gate(1.10, 1.0);
    assert!(!verdict.regressed && verdict.count(Outcome::Suspected) > 0, "{verdict:?}");
}

/// Where the machine is noisy more pairs are measured, whichever side looks slower, and a slow-down is found that
/// the first pairs could not show.
#[test]
fn noise_takes_more_pairs() {
    // Every measurement by itself is longer by up to `noise`, as if the machine changed within pairs.
    let gate = |slow: f64, noise: f64, max_pairs: usize| {
        let mut rng = Rng::new(21);
        let mut asked = [Vec::new(), Vec::new()];
        let measure = |look, count| -> Result<_, GateError> {
            asked[usize::from(look == Look::Second)].push(count);
            let one = |rng: &mut Rng, slow: f64| {
                let by = (noise * rng.normal()).exp();
                evidence(&bench(1, |_| by * slow, rng))
            };
            Ok(Some((0..count).map(|_| (one(&mut rng, 1.0), one(&mut rng, slow))).collect()))
        };
        let options = GateOptions { pairs: 20, max_pairs, ..GateOptions::default() };
        let verdict = judge_pairs(measure, &options, Across::default()).unwrap();
        (verdict, asked)
    };
    let (verdict, asked) = gate(1.0, 0.005, 40);
    assert_eq!(asked, [vec![20], vec![]], "a look only at what looked bad");
    assert!(verdict.notes.iter().all(|note| !note.contains("pairs")), "{:?}", verdict.notes);
    let (verdict, asked) = gate(1.10, 0.005, 40);
    assert_eq!(asked, [vec![20], vec![20]]);
    assert!(verdict.regressed);

    let (verdict, few) = gate(1.12, 0.12, 20);
    assert!(!verdict.regressed && few[0] == [20], "{verdict:?}");
    let (verdict, many) = gate(1.12, 0.12, 320);
    assert!(verdict.regressed && many[0].iter().sum::<usize>() > 40, "{many:?} {verdict:?}");
    let said = verdict.notes.iter().filter(|note| note.contains("were measured"));
    assert_eq!(said.count(), 1, "{:?}", verdict.notes);
    // As many for its inverse and for no difference: the width alone decides.
    assert_eq!(gate(1.0 / 1.12, 0.12, 320).1[0], many[0]);
    assert_eq!(gate(1.0, 0.12, 320).1[0], many[0]);
    // Half as many again, and no more than allowed.
    assert_eq!(gate(1.0, 0.5, 40).1[0], [20, 10, 10]);
}

#[test]
fn a_fact_that_varies_by_itself_decides_nothing() {
    let mut rng = Rng::new(9);
    let mut pairs = pairs(6, 1.0, &mut rng);
    pairs[3].0.rows[0].facts.tokens_hash = Some("sometimes".into());
    pairs[0].1.rows[0].facts.tokens_hash = Some("other".into());
    let verdict = judged(&pairs, None);
    let check = verdict.checks.iter().find(|c| c.outcome == Outcome::Undecided).unwrap();
    assert_eq!(check.metric, "tokens");
    assert!(!verdict.regressed);
}

/// Of peaks the highest of each side count, whichever pair it was in, and in files with several results.
#[test]
fn the_highest_peak_counts() {
    let mut rng = Rng::new(14);
    let peak = |pairs: &[Pair]| {
        let verdict = judged(pairs, None);
        verdict.checks.into_iter().find(|c| c.metric == "peak_bytes").unwrap()
    };
    let mut more = pairs(6, 1.0, &mut rng);
    more[4].1.rows[0].facts.peak_bytes_in_use = Some(4000);
    let check = peak(&more);
    assert_eq!((check.outcome, check.new.as_str()), (Outcome::Regressed, "4000 B"));
    // What the base needs at times the new one may need.
    more[2].0.rows[0].facts.peak_bytes_in_use = Some(4000);
    let check = peak(&more);
    assert_eq!((check.outcome, check.base.as_str()), (Outcome::Passed, "4000 B"));

    let first = bench(10, |_| 1.0, &mut rng);
    let mut second = first.clone();
    second.rows[1].facts.peak_bytes_in_use = Some(7000);
    let both = Evidence::of_bench("file", &[first, second]).unwrap();
    assert_eq!(both.rows[0].facts.peak_bytes_in_use, Some(1000));
    assert_eq!(both.rows[1].facts.peak_bytes_in_use, Some(7000));
}

/// What needs a label is a series of its own in a history, and says so.
#[test]
fn labels_part_the_series_of_a_history() {
    let mut rng = Rng::new(15);
    let trained = bench(4, |_| 1.0, &mut rng);
    let mut random = trained.clone();
    random.fingerprint.model.weights = Weights::Random;
    let mut software = trained.clone();
    software.fingerprint.device.device_type = DeviceType::Software;
    let mut rumour = trained.clone();
    rumour.fingerprint.model.rumour = true;
    let entry = |bench: &BenchResult| {
        moescope_analysis::history::entry(&evidence(bench), &bench.id, &bench.created_at)
    };
    let all: Vec<_> = [&trained, &random, &software, &rumour].into_iter().map(entry).collect();
    let labels = ["random weights", "software adapter", "rumoured shapes"];
    for (entry, label) in all[1..].iter().zip(labels) {
        assert!(entry.conditions.ends_with(label), "{}", entry.conditions);
        assert!(entry.conditions.starts_with(&all[0].conditions));
    }
    let trends = moescope_analysis::history::trends(&all, &Default::default());
    assert!(trends.iter().all(|trend| trend.points.len() == 1));
    assert_eq!(trends.len(), 4 * all[0].values.len());
}

/// A base that is always the same shows that the new one need not vary: a race came in.
#[test]
fn what_becomes_random_fails() {
    let mut rng = Rng::new(11);
    let mut tokens = pairs(6, 1.0, &mut rng);
    tokens[3].1.rows[0].facts.tokens_hash = Some("sometimes".into());
    let verdict = judged(&tokens, None);
    assert!(verdict.regressed, "{verdict:?}");
    // An error in any of the pairs counts, not in the first alone.
    let mut failing = pairs(6, 1.0, &mut rng);
    failing[4].1.rows[0].error = Some("device lost".into());
    let verdict = judged(&failing, None);
    let check = verdict.checks.iter().find(|c| c.metric == "completed").unwrap();
    assert!(verdict.regressed && check.outcome == Outcome::Regressed, "{verdict:?}");
}

/// A rank test of few samples among many times can't be significant: what looks worse is then not passed.
#[test]
fn too_few_samples_for_so_many_times_decide_nothing() {
    let mut rng = Rng::new(31);
    // Sixteen rows of two times; of one row both are twice as long in the new measurement.
    let wide = |samples: usize, slow: f64, rng: &mut Rng| {
        let mut result = bench(samples, |_| 1.0, rng);
        let row = result.rows[0].clone();
        result.rows = (1..=16)
            .map(|batch| {
                let mut row = row.clone();
                row.configuration.batch = batch;
                let of_row = if batch == 3 { slow } else { 1.0 };
                for sample in &mut row.samples {
                    let mut by = || of_row * f64::from(batch) * (0.01 * rng.normal()).exp();
                    sample.prefill_ns = sample.prefill_ns.map(|ns| (ns as f64 * by()) as u64);
                    let by = by();
                    sample.decode_ns.iter_mut().for_each(|ns| *ns = (*ns as f64 * by) as u64);
                }
                row
            })
            .collect();
        result
    };
    let of_slow = |verdict: &Verdict| -> Vec<(Outcome, String)> {
        let checks = verdict.checks.iter().filter(|c| !c.hard && c.row.ends_with(" b3"));
        checks.map(|c| (c.outcome, c.note.clone().unwrap_or_default())).collect()
    };
    // 1/252 x 32 / 2 = 0.063: two times that are worse, and still too few samples.
    let verdict = compare(&wide(5, 1.0, &mut rng), &wide(5, 2.0, &mut rng));
    assert!(!verdict.regressed);
    let found = of_slow(&verdict);
    assert_eq!(found.len(), 2);
    for (outcome, note) in found {
        assert_eq!(outcome, Outcome::Undecided, "{verdict:?}");
        assert!(note.contains("5 samples can't show it among 32 times"), "{note}");
        // C(12, 6) = 924 is the first above 32 / 0.05 = 640.
        assert!(note.contains("6 samples on each side"), "{note}");
    }
    let said = verdict.notes.iter().find(|note| note.contains("a single slow-down")).unwrap();
    assert!(said.contains("5 samples") && said.contains("0.127"), "{said}");
    assert!(verdict.headline().contains("2 undecided"), "{}", verdict.headline());
    // As many as it says are enough.
    let verdict = compare(&wide(6, 1.0, &mut rng), &wide(6, 2.0, &mut rng));
    assert!(verdict.regressed, "{verdict:?}");
    assert!(verdict.notes.iter().all(|note| !note.contains("single slow-down")));
}

/// A quiet machine leaves narrow intervals, and the test still needs its pairs.
#[test]
fn as_many_pairs_as_the_test_needs() {
    let gate = |slow: f64, max_pairs: usize| {
        let mut rng = Rng::new(32);
        let mut asked = [Vec::new(), Vec::new()];
        let measure = |look, count| -> Result<_, GateError> {
            asked[usize::from(look == Look::Second)].push(count);
            // Prompts take the same time always; of one row generation is slower.
            let one = |slow: f64, rng: &mut Rng| {
                let mut result = bench(1, |_| 1.0, rng);
                for row in &mut result.rows {
                    row.samples[0].prefill_ns =
                        Some(u64::from(row.configuration.prompt) * 1_000_000);
                }
                let decode = &mut result.rows[1].samples[0].decode_ns;
                decode.iter_mut().for_each(|ns| *ns = (*ns as f64 * slow) as u64);
                evidence(&result)
            };
            Ok(Some((0..count).map(|_| (one(1.0, &mut rng), one(slow, &mut rng))).collect()))
        };
        let options = GateOptions { pairs: 5, max_pairs, ..GateOptions::default() };
        (judge_pairs(measure, &options, Across::default()).unwrap(), asked)
    };
    // Four times: 2^-6 x 4 = 0.063, 2^-7 x 4 = 0.031. The second look is at one time: 5 will do.
    let (verdict, asked) = gate(1.5, 40);
    assert_eq!(asked, [vec![5, 2], vec![5]]);
    assert!(verdict.regressed, "{verdict:?}");
    assert_eq!(verdict.pairs, Some([7, 5]));
    assert!(verdict.notes.iter().any(|n| n.contains("too few for 4 times")), "{:?}", verdict.notes);
    // Whichever side looks slower.
    assert_eq!(gate(1.0, 40).1[0], [5, 2]);
    // No more than allowed: then nothing is decided, and it is said.
    let (verdict, asked) = gate(1.5, 6);
    assert_eq!(asked[0], [5, 1]);
    assert!(!verdict.regressed && verdict.count(Outcome::Undecided) == 1, "{verdict:?}");
    let check = verdict.checks.iter().find(|c| c.outcome == Outcome::Undecided).unwrap();
    assert!(check.note.as_ref().unwrap().contains("that takes 7 pairs"), "{check:?}");
}

/// What is taken together as one side is one build under one set of conditions.
#[test]
fn one_side_is_one_build() {
    let mut rng = Rng::new(33);
    let first = bench(6, |_| 1.0, &mut rng);
    let other = |change: fn(&mut Fingerprint)| {
        let mut other = first.clone();
        change(&mut other.fingerprint);
        other
    };
    let commit = other(|f| f.git_commit = Some("def".into()));
    let threads = other(|f| f.host.threads = Some(1));
    let governor = other(|f| f.state.cpu_governor = Some("powersave".into()));
    let file = |results: &[&BenchResult]| {
        let results: Vec<BenchResult> = results.iter().map(|&result| result.clone()).collect();
        Evidence::of_bench("file", &results)
    };
    // In a file that was appended to.
    for (later, part) in [(&commit, "1 (abc) against 1 (def)"), (&threads, "threads: 2 against 1")]
    {
        let error = file(&[&first, &first, later]).unwrap_err();
        assert!(matches!(error, GateError::OneSide { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let pooled = file(&[&first, &governor, &governor]).unwrap();
    let verdict =
        judge(&evidence(&first), &pooled, None, &GateOptions::default(), Across::default());
    let notes = verdict.unwrap().notes;
    let said: Vec<&String> = notes.iter().filter(|note| note.contains("3 results")).collect();
    assert_eq!(said.len(), 1, "{notes:?}");
    assert!(said[0].contains("CPU governor: unknown against powersave"), "{said:?}");

    // In a second pair of files, needed or not.
    let retry = |base: &BenchResult, new: &BenchResult| {
        let again = (&evidence(base), &evidence(new));
        let (base, new) = (evidence(&first), evidence(&commit));
        judge(&base, &new, Some(again), &GateOptions::default(), Across::default())
    };
    assert!(retry(&first, &commit).unwrap().notes.is_empty());
    for (base, new) in [(&commit, &commit), (&first, &first), (&threads, &commit)] {
        let error = retry(base, new).unwrap_err();
        assert!(matches!(error, GateError::OneSide { .. }), "{error}");
    }
    let notes = retry(&governor, &commit).unwrap().notes;
    let said = |part: &str| notes.iter().any(|note| note.contains(part));
    // Against its new measurement, and against the first base.
    assert!(said("second measurements: the machine was in another state"), "{notes:?}");
    assert!(said("file and file: the machine was in another state"), "{notes:?}");

    // Among pairs.
    let mut rebuilt = pairs(6, 1.0, &mut rng);
    rebuilt[4].1.fingerprint.git_commit = Some("def".into());
    let mut looks = Some(rebuilt);
    let error = judge_pairs(
        |_, _| -> Result<_, GateError> { Ok(looks.take()) },
        &GateOptions::default(),
        Across::default(),
    );
    assert!(matches!(error, Err(GateError::OneSide { .. })), "{error:?}");
}

/// What is remarkable about any pair is said, and how many of them it is about.
#[test]
fn remarks_are_of_all_pairs() {
    let mut rng = Rng::new(34);
    let mut some = pairs(6, 1.0, &mut rng);
    for pair in [2, 4] {
        some[pair].1.fingerprint.state.load_average = Some([8.0, 1.0, 1.0]);
        some[pair].0.fingerprint.state.load_average = Some([0.0, 0.0, 0.0]);
    }
    some[5].0.fingerprint.state.cpu_mhz = Some(2000.0);
    some[5].1.fingerprint.state.cpu_mhz = Some(3000.0);
    for (base, new) in &mut some {
        base.fingerprint.git_commit = Some("abc-dirty".into());
        new.fingerprint.git_commit = Some("def".into());
    }
    let notes = judged(&some, None).notes;
    let state = notes.iter().find(|note| note.contains("another state")).unwrap();
    assert!(state.contains("load at the start: idle against busy (in 2 of 6 pairs)"), "{state}");
    assert!(state.contains("2000 MHz against 3000 MHz (in 1 of 6 pairs)"), "{state}");
    let dirty: Vec<&String> = notes.iter().filter(|note| note.contains("abc-dirty")).collect();
    assert_eq!(dirty.len(), 1, "{notes:?}");
}

/// What neither side recorded is not checked, and that is said.
#[test]
fn what_nobody_recorded_is_named() {
    let mut rng = Rng::new(35);
    let mut base = bench(6, |_| 1.0, &mut rng);
    for row in &mut base.rows {
        row.facts.peak_bytes_in_use = None;
    }
    base.rows[1].facts.dispatches = None;
    // A prompt alone has no decode pass to miss the bytes of.
    let row = &mut base.rows[0];
    row.configuration.generate = 0;
    row.samples.iter_mut().for_each(|sample| sample.decode_ns.clear());
    row.facts.bytes_per_token = None;
    let verdict = compare(&base, &base);
    assert_eq!(
        verdict.notes,
        ["not recorded on either side, so not checked: peak_bytes, dispatches (in 1 of 2 rows)"]
    );
    let ignore = vec!["peak_bytes".into(), "dispatches".into()];
    let options = GateOptions { ignore, ..GateOptions::default() };
    let verdict = judge(&evidence(&base), &evidence(&base), None, &options, Across::default());
    assert!(verdict.unwrap().notes.is_empty());
}

/// Results put together from a file that was appended to agree in what no time changes.
#[test]
fn appended_results_that_disagree_are_an_error_of_their_row() {
    let mut rng = Rng::new(12);
    let first = bench(6, |_| 1.0, &mut rng);
    let mut second = bench(6, |_| 1.0, &mut rng);
    let together = |second: &BenchResult| {
        Evidence::of_bench("file", &[first.clone(), second.clone()]).unwrap()
    };
    assert!(together(&second).rows.iter().all(|row| row.error.is_none()));
    second.rows[1].facts.routing_hash = Some("another".into());
    let evidence = together(&second);
    assert!(evidence.rows[0].error.is_none());
    assert!(evidence.rows[1].error.as_ref().unwrap().contains("routing"));
}

/// `text` is a name: what it was is in the hash.
#[test]
fn other_tokens_do_not_compare() {
    let mut rng = Rng::new(16);
    let of = |hash: Option<&str>, rng: &mut Rng| {
        let mut result = bench(6, |_| 1.0, rng);
        result.workload_hash = hash.map(str::to_owned);
        result
    };
    let [one, same, other, unknown] =
        [Some("a"), Some("a"), Some("b"), None].map(|hash| of(hash, &mut rng));
    let judged = |new: &BenchResult| {
        let options = GateOptions::default();
        judge(&evidence(&one), &evidence(new), None, &options, Across::default())
    };
    assert!(judged(&same).is_ok() && judged(&unknown).is_ok());
    let error = judged(&other).unwrap_err().to_string();
    assert!(error.contains("different tokens") && error.contains("text pp16 tg8 b1"), "{error}");
    assert!(Evidence::of_bench("file", &[one.clone(), same]).is_ok());
    let error = Evidence::of_bench("file", &[one.clone(), other.clone()]).unwrap_err().to_string();
    assert!(error.contains("the first result of file"), "{error}");
    // And are a series of their own in a history.
    let conditions = |bench: &BenchResult| {
        moescope_analysis::history::entry(&evidence(bench), &bench.id, &bench.created_at).conditions
    };
    assert_ne!(conditions(&one), conditions(&other));
    assert!(conditions(&one).contains("workload a"), "{}", conditions(&one));
}

/// What random or rumoured models measure is called that.
#[test]
fn a_verdict_says_what_its_numbers_are_of() {
    let mut rng = Rng::new(13);
    let mut result = bench(6, |_| 1.0, &mut rng);
    result.fingerprint.model.weights = Weights::Random;
    result.fingerprint.model.rumour = true;
    let evidence = |name| Evidence::of_bench(name, std::slice::from_ref(&result)).unwrap();
    let (base, new) = (evidence("base"), evidence("new"));
    let verdict = judge(&base, &new, None, &GateOptions::default(), Across::default());
    let notes = verdict.unwrap().notes;
    assert!(notes.iter().any(|n| n == "new: random weights, rumoured shapes"), "{notes:?}");
}

#[test]
fn thresholds_are_strict() {
    let parse = |text: &str| GateOptions::parse(text, std::path::Path::new("moescope.toml"));
    assert_eq!(parse("").unwrap(), GateOptions::default());
    let options = parse(
        "[gate]\nthreshold = 0.1\nignore = [\"balance\"]\n[gate.times]\ndecode = 0.02\n\
         [gate.limits]\nrouting_overlap = 0.98\n",
    )
    .unwrap();
    assert_eq!((options.threshold_of("prefill"), options.threshold_of("decode")), (0.1, 0.02));
    assert!(!options.checks("balance") && options.checks("tokens"));
    for (text, parts) in [
        ("[gate]\ntreshold = 0.1", ["moescope.toml", "treshold", "threshold"]),
        ("[gates]\n", ["moescope.toml", "gates", "gate"]),
        ("[gate]\nthreshold = -0.1", ["gate.threshold", "-0.1", "at least 0"]),
        ("[gate]\nthreshold = nan", ["gate.threshold", "NaN", "at least 0"]),
        ("[gate]\nsignificance = 0", ["gate.significance", "0", "above 0"]),
        ("[gate]\nignore = [\"time\"]", ["gate.ignore", "time", "peak_bytes"]),
        ("[gate.limits]\nrouting_overlap = 1.5", ["routing_overlap", "1.5", "from 0 to 1"]),
        ("[gate]\nthreshold = \"5%\"", ["moescope.toml", "threshold", "string"]),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

/// Fifty comparisons of noise with itself, half of them in heavy weather: at most one alarm.
#[test]
fn noise_raises_no_alarm() {
    let mut rng = Rng::new(10);
    let mut alarms = 0;
    for trial in 0..50 {
        let heavy = trial % 2 == 1;
        let weather = |rng: &mut Rng| -> Vec<f64> {
            let spread = if heavy { 0.15 } else { 0.02 };
            (0..10).map(|_| (spread * rng.normal().abs()).exp()).collect()
        };
        let (a, b) = (weather(&mut rng), weather(&mut rng));
        let base = bench(10, |at| a[at], &mut rng);
        let new = bench(10, |at| b[at], &mut rng);
        alarms += usize::from(compare(&base, &new).regressed);
    }
    assert!(alarms <= 1, "{alarms}");
}

/// A history of benches: speeds and facts as trends, a change where the program became slower, and
/// series of other conditions apart.
#[test]
fn a_history_shows_where_it_changed() {
    use moescope_analysis::history::{entry, trends};
    use moescope_analysis::stats::ChangeOptions;

    let mut rng = Rng::new(12);
    let mut entries = Vec::new();
    for at in 0..24 {
        let slow = if at < 14 { 1.0 } else { 1.15 };
        let mut result = bench(5, |_| slow, &mut rng);
        result.fingerprint.git_commit = Some(format!("commit{at}"));
        if at == 3 {
            result.fingerprint.model.dtype = "bf16".into();
        }
        entries.push(entry(
            &evidence(&result),
            &format!("id{at}"),
            &format!("2026-07-{:02}", at + 1),
        ));
    }
    let trends = trends(&entries, &ChangeOptions::default());
    // Two rows of two speeds and five facts, under two conditions.
    assert_eq!(trends.len(), 2 * 7 * 2);
    for trend in &trends {
        let speed = ["prefill", "decode"].contains(&trend.metric.as_str());
        if trend.points.len() == 1 {
            assert!(trend.conditions.contains("dtype=bf16") && trend.changes.is_empty());
            continue;
        }
        assert_eq!(trend.points.len(), 23);
        let changes: Vec<&str> = trend
            .changes
            .iter()
            .map(|change| trend.points[change.index].commit.as_deref().unwrap())
            .collect();
        assert_eq!(changes, if speed { vec!["commit14"] } else { vec![] }, "{}", trend.metric);
        if speed {
            let ratio = trend.ratio(&trend.changes[0]);
            assert!((ratio * 1.15 - 1.0).abs() < 0.02, "{ratio}");
            assert_eq!(trend.unit, "tokens/s");
        }
    }
}
