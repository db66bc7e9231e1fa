//! The protocol on a small model that can be told to fail, and that remembers what it was asked.

use std::{
    cell::Cell,
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use burn::tensor::{Device, Int, Tensor};
use moescope_model::{
    Checkpoint, DType, KvCache, LoadOptions, LogitsFor, ModelSpec, MoeImpl, MoeModel, Observer,
    Result as ModelResult, load,
};
use moescope_trace::bench::{BenchRow, Configuration};

use super::*;

/// How a pass fails.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    Error,
    Panic,
    /// The device does nothing more.
    Lost,
}

/// Passes by batch and by tokens in the cache before.
type Seen = Vec<(usize, usize, Vec<i32>)>;

struct Told {
    model: Box<dyn MoeModel>,
    seen: Mutex<Seen>,
    /// Fails passes of this batch from this one on (counted from 0).
    fault: Option<(Fault, usize, u32)>,
    passes: AtomicU32,
    lost: AtomicBool,
}

impl Told {
    fn new(fault: Option<(Fault, usize, u32)>) -> Self {
        Told::of("crates/moescope-model/tests/fixtures/gemma4-moe", fault)
    }

    /// The model of a folder of the project.
    fn of(folder: &str, fault: Option<(Fault, usize, u32)>) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let device = Device::flex();
        let (dtype, moe_impl) = (DType::F32, MoeImpl::Selected);
        let options = LoadOptions { device: &device, dtype, moe_impl, progress: &|_, _| {} };
        Told {
            model: load(&checkpoint, &options).unwrap().0,
            seen: Mutex::default(),
            fault,
            passes: AtomicU32::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn arm(&self) -> Arm<'_> {
        Arm { model: self, dtype: DType::F32 }
    }
}

impl MoeModel for Told {
    fn spec(&self) -> &ModelSpec {
        self.model.spec()
    }

    fn device(&self) -> &Device {
        self.model.device()
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> ModelResult<Tensor<2>> {
        let batch = ids.dims()[0];
        let values = ids.clone().into_data().try_into_vec::<i32>().unwrap();
        self.seen.lock().unwrap().push((batch, cache.len(), values));
        if let Some((fault, of, from)) = self.fault
            && batch == of
            && self.passes.fetch_add(1, Ordering::Relaxed) >= from
        {
            self.lost.store(fault == Fault::Lost, Ordering::Relaxed);
            if fault == Fault::Error {
                return Err(moescope_model::ModelError::ContextLength { tokens: 9, context: 8 });
            }
            panic!("injected: no memory for a buffer");
        }
        self.model.forward(ids, cache, observer, logits)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        assert!(!self.lost.load(Ordering::Relaxed), "injected: device lost");
        self.model.head(normed)
    }
}

fn row(prompt: u32, generate: u32, depth: u32, batch: u32) -> Configuration {
    Configuration { workload: "random".into(), prompt, generate, depth, batch }
}

/// Few warm-ups, whatever the machine does.
fn quick(samples: u32) -> Options {
    let warm_up = WarmUp { least: 2, most: 2, ..WarmUp::default() };
    Options { samples, warm_up, ..Options::default() }
}

fn bench(arms: &[Arm<'_>], configurations: &[Configuration], options: Options) -> Measured {
    let workload = Workload::random(arms[0].model.spec(), 1);
    let bench = Bench { arms, configurations, workload: &workload, options };
    bench.run(&mut || None, &mut |_| {}, &|| false)
}

#[test]
fn rows_have_what_was_asked_for() {
    let model = Told::new(None);
    // The window of the fixture is 8: depths on both sides of it.
    let rows = [row(6, 0, 0, 1), row(0, 3, 0, 1), row(4, 2, 20, 2), row(0, 5, 5, 3)];
    let measured = bench(&[model.arm()], &rows, quick(3));
    assert!(!measured.interrupted);
    let [found] = measured.arms.as_slice() else { panic!("one arm") };
    for (found, asked) in found.iter().zip(&rows) {
        assert_eq!((&found.configuration, &found.error), (asked, &None));
        assert_eq!((found.samples.len(), found.warm_ups), (3, 2));
        for sample in found.samples.iter().chain(&found.cold) {
            assert_eq!(sample.prefill_ns.is_some(), asked.prompt > 0);
            assert_eq!(sample.decode_ns.len(), asked.generate as usize);
        }
        let facts = &found.facts;
        assert!(
            found.cold.is_some() && facts.tokens_hash.is_some() && facts.routing_hash.is_some()
        );
        let spec = model.spec();
        let (experts, top_k) = (spec.moe[0].experts, spec.moe[0].top_k);
        let together = if asked.generate == 0 { asked.prompt } else { asked.batch };
        let apart = 1.0 - f64::from(top_k) / f64::from(experts);
        let expected = f64::from(experts) * (1.0 - apart.powi(together as i32));
        assert!((facts.distinct_expected.unwrap() - expected).abs() < 1e-9);
        let distinct = facts.distinct_experts.unwrap();
        let most = (u32::from(top_k) * together).min(u32::from(experts));
        assert!(distinct >= f64::from(top_k) && distinct <= f64::from(most), "{distinct} {most}");
        let layers = &facts.distinct_by_layer;
        assert!(layers.iter().map(|l| l.layer).eq(spec.moe.iter().map(|moe| moe.layer)));
        let sum: f64 = layers.iter().map(|l| l.measured).sum();
        assert!((sum / layers.len() as f64 - distinct).abs() < 1e-9, "{layers:?}");
        // Of the weights at most all are read, once for the whole batch, and keys and values are few.
        let all = model.spec().bytes(DType::F32) as f64 * 1.5;
        assert_eq!(facts.bytes_per_token.is_some(), asked.generate > 0);
        let read = facts.bytes_per_token.map(|bytes| bytes * f64::from(asked.batch));
        assert!(read.is_none_or(|bytes| bytes > 0.0 && bytes < all), "{read:?} {all}");
        assert_eq!(facts.other.contains_key("prefill_flops_per_token"), asked.prompt > 0);
        assert_eq!(facts.other.contains_key("decode_flops_per_token"), asked.generate > 0);
    }
    // Facts are the same every time, with or without company.
    let alone = bench(&[model.arm()], &rows[2..3], quick(1));
    assert_eq!(alone.arms[0][0].facts.disagreement(&found[2].facts), None);
}

/// Every pass through a row reads the same tokens after the same context, whatever ran in between.
#[test]
fn every_pass_reads_the_same_tokens() {
    for cache_bytes in [u64::MAX, 0] {
        let model = Told::new(None);
        let rows = [row(3, 4, 10, 2), row(0, 2, 0, 1)];
        bench(&[model.arm()], &rows, Options { cache_bytes, ..quick(3) });
        let workload = Workload::random(model.spec(), 1);
        let mut by_place: BTreeMap<(usize, usize), Vec<Vec<i32>>> = BTreeMap::new();
        for (batch, context, ids) in model.seen.into_inner().unwrap() {
            by_place.entry((batch, context)).or_default().push(ids);
        }
        // Cold, facts, two warm-ups, three samples; a cache that is not kept has a pass before each.
        let passes = if cache_bytes == 0 { 10 } else { 7 };
        for (batch, from, to) in
            [(2, 10, 13), (2, 13, 14), (2, 14, 15), (2, 15, 16), (2, 16, 17), (1, 0, 1), (1, 1, 2)]
        {
            let of = |b| workload.sequence(b, to)[from..to].to_vec();
            let want: Vec<i32> = (0..batch as u32).flat_map(of).map(|id| id as i32).collect();
            let found = &by_place[&(batch, from)];
            assert_eq!(found.len(), passes, "batch {batch} at {from}");
            assert!(found.iter().all(|ids| *ids == want), "batch {batch} at {from}");
        }
        // The depth: filled for the first passes, for the warm-up, and for every sample where the cache
        // is not kept.
        assert_eq!(by_place[&(2, 0)].len(), if cache_bytes == 0 { 5 } else { 2 });
    }
}

/// Each round has every row of every arm once, in an order that changes.
#[test]
fn samples_are_taken_in_turns() {
    let (a, b) = (Told::new(None), Told::new(None));
    let rows = [row(2, 0, 0, 1), row(0, 2, 0, 1), row(2, 0, 0, 2)];
    let measured = bench(&[a.arm(), b.arm()], &rows, quick(6));
    let mut taken = Vec::new();
    for (arm, rows) in measured.arms.iter().enumerate() {
        for (place, row) in rows.iter().enumerate() {
            assert!(row.samples.is_sorted_by_key(|sample| sample.at_ns));
            taken.extend(row.samples.iter().map(|sample| (sample.at_ns, (arm, place))));
        }
    }
    taken.sort_unstable();
    let rounds: Vec<Vec<_>> =
        taken.chunks(6).map(|round| round.iter().map(|(_, lane)| *lane).collect()).collect();
    assert_eq!(rounds.len(), 6);
    for round in &rounds {
        let mut lanes = round.clone();
        lanes.sort_unstable();
        assert_eq!(lanes, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    }
    assert!(rounds.iter().any(|round| *round != rounds[0]), "{rounds:?}");
    let facts = |arm: usize, place: usize| &measured.arms[arm][place].facts;
    assert!((0..3).all(|place| facts(0, place).disagreement(facts(1, place)).is_none()));
}

fn errors(rows: &[BenchRow]) -> Vec<Option<&str>> {
    rows.iter().map(|row| row.error.as_deref()).collect()
}

#[test]
fn a_row_that_fails_keeps_its_error_and_the_rest_goes_on() {
    let rows = [row(4, 0, 0, 1), row(4, 0, 0, 2), row(0, 2, 0, 1)];
    // From the start, and after the cold pass, the observed one, two warm-ups and one sample.
    for (fault, from, says) in [
        (Fault::Error, 0, "9 tokens do not fit the context of 8 (0 of 3 samples)"),
        (
            Fault::Panic,
            5,
            "the backend panicked: injected: no memory for a buffer (1 of 3 samples)",
        ),
    ] {
        let model = Told::new(Some((fault, 2, from)));
        let measured = bench(&[model.arm()], &rows, quick(3));
        let found = &measured.arms[0];
        assert_eq!(errors(found), [None, Some(says), None]);
        assert!(!measured.interrupted);
        let samples: Vec<usize> = found.iter().map(|row| row.samples.len()).collect();
        assert_eq!(samples, [3, usize::from(from == 5), 3]);
        assert_eq!(found[1].cold.is_some(), from == 5);
    }
}

/// What was measured before the device went stays; rows that are left say why they are empty.
#[test]
fn a_lost_device_ends_the_rows_that_are_left() {
    let rows = [row(4, 0, 0, 1), row(4, 0, 0, 2), row(0, 2, 0, 1)];
    let model = Told::new(Some((Fault::Lost, 2, 1)));
    let measured = bench(&[model.arm()], &rows, quick(2));
    let found = &measured.arms[0];
    let lost = "the device was lost in random pp4 b2 (the backend panicked: injected: no memory for a \
                buffer) (0 of 2 samples)";
    let own = "the backend panicked: injected: no memory for a buffer (0 of 2 samples)";
    assert_eq!(errors(found), [Some(lost), Some(own), Some(lost)]);
    assert!(found[0].cold.is_some() && found[2].cold.is_none());
}

#[test]
fn a_bench_that_is_stopped_keeps_what_it_has() {
    let model = Told::new(None);
    let rows = [row(4, 0, 0, 1), row(0, 2, 0, 1)];
    let workload = Workload::random(model.spec(), 1);
    let run = |stop: &dyn Fn(&Progress<'_>, u32) -> bool| {
        let arms = [model.arm()];
        let options = quick(3);
        let bench = Bench { arms: &arms, configurations: &rows, workload: &workload, options };
        let (mut samples, asked) = (0, Cell::new(false));
        let mut look = |p: &Progress<'_>| {
            samples += u32::from(p.stage == Stage::Sample);
            assert!(p.done < p.total, "{p:?}");
            asked.set(stop(p, samples));
        };
        bench.run(&mut || Some(0.0), &mut look, &|| asked.get())
    };
    // In the second round: one row has two samples, the other one.
    let measured = run(&|_, samples| samples == 4);
    assert!(measured.interrupted);
    let mut taken: Vec<usize> = measured.arms[0].iter().map(|row| row.samples.len()).collect();
    for (row, taken) in measured.arms[0].iter().zip(&taken) {
        assert_eq!(row.error.as_deref(), Some(&*format!("interrupted ({taken} of 3 samples)")));
        assert!(row.samples.iter().all(|sample| sample.joules == Some(0.0)));
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
    let measured = run(&|p, _| p.stage == Stage::WarmUp);
    assert!(measured.arms[0].iter().all(|row| row.samples.is_empty() && row.cold.is_some()));
    // Not at all: everything is there, and time left was known once a row had run.
    let left = Cell::new(0);
    let measured = run(&|p, _| {
        assert_eq!(p.left.is_some(), p.done > 0);
        left.set(left.get() + 1);
        false
    });
    assert!(!measured.interrupted && measured.arms[0].iter().all(|row| row.error.is_none()));
    assert_eq!(left.get(), 2 * (1 + 2 + 3));
}

/// A wish to stop is heard before the next forward pass: in the middle of a sample, and of filling a depth.
#[test]
fn a_bench_stops_within_a_pass_and_within_a_depth() {
    // A context of more than one chunk.
    let model = Told::of("datasets/tiny-gemma4-moe", None);
    let workload = Workload::random(model.spec(), 1);
    let stopped_after = |row: Configuration, forwards: usize| {
        model.seen.lock().unwrap().clear();
        let (arms, rows) = ([model.arm()], [row]);
        let bench =
            Bench { arms: &arms, configurations: &rows, workload: &workload, options: quick(3) };
        let mut fills = Vec::new();
        let mut look = |p: &Progress<'_>| {
            if let Stage::Fill { tokens } = p.stage {
                fills.push(tokens);
            }
        };
        let stop = || model.seen.lock().unwrap().len() >= forwards;
        let mut measured = bench.run(&mut || None, &mut look, &stop);
        assert!(measured.interrupted);
        assert_eq!(model.seen.lock().unwrap().len(), forwards, "not one more");
        (measured.arms.remove(0).remove(0), fills)
    };
    // Cold, facts and two warm-ups of 6 passes each, a sample, half of another.
    let (found, fills) = stopped_after(row(0, 6, 0, 1), 4 * 6 + 6 + 3);
    assert_eq!(found.error.as_deref(), Some("interrupted (1 of 3 samples)"));
    assert_eq!((found.samples.len(), fills.len()), (1, 0));
    assert_eq!(found.samples[0].decode_ns.len(), 6);
    // Two of three chunks of a depth.
    let (found, fills) = stopped_after(row(0, 1, 1100, 1), 2);
    assert_eq!(found.error.as_deref(), Some("interrupted (0 of 3 samples)"));
    assert!(found.cold.is_none());
    assert_eq!(fills, [0, 512, 1024]);
}

/// A counter that steps far more rarely than samples end: passes one after the other tell what they tell in the
/// long run, here 20 W. What the counter says late is not this row's.
#[test]
fn short_samples_have_their_energy_counted_over_longer() {
    const STEP: Duration = Duration::from_millis(20);
    let model = Told::new(None);
    let workload = Workload::random(model.spec(), 1);
    let rows = [row(4, 0, 0, 1), row(0, 2, 0, 3)];
    let arms = [model.arm()];
    let run = |energy_over: Duration, counts: bool| {
        let options = Options { energy_over, ..quick(3) };
        let bench = Bench { arms: &arms, configurations: &rows, workload: &workload, options };
        let start = Instant::now();
        let mut joules = || {
            let steps = start.elapsed().as_nanos() / STEP.as_nanos();
            counts.then(|| 20.0 * steps as f64 * STEP.as_secs_f64())
        };
        bench.run(&mut joules, &mut |_| {}, &|| false).arms.remove(0)
    };
    for row in run(10 * STEP, true) {
        let energy = row.energy.unwrap();
        assert_eq!((row.error, row.samples.len()), (None, 3));
        assert!(energy.passes > 0 && u128::from(energy.ns) >= (10 * STEP).as_nanos());
        // A step more or less, of ten.
        let watts = energy.joules / (energy.ns as f64 / 1e9);
        assert!((17.5..22.5).contains(&watts), "{watts} W");
    }
    // Nothing counts, or samples are long enough.
    assert!(run(10 * STEP, false).iter().all(|row| row.energy.is_none()));
    assert!(run(Duration::from_nanos(1), true).iter().all(|row| row.energy.is_none()));
}

#[test]
fn rows_beyond_the_context_are_refused() {
    let model = Told::new(None);
    let context = model.spec().context as u32;
    let fits = [row(context - 8, 4, 4, 1)];
    assert!(check_context(&fits, model.spec()).is_ok());
    let too_long = [row(4, 0, 0, 1), row(context - 8, 4, 5, 1), row(context, 0, 0, 9)];
    let error = check_context(&too_long, model.spec()).unwrap_err().to_string();
    assert!(error.contains(&format!("d5 b1: {} tokens", context + 1)), "{error}");
    assert!(error.contains("lower -d, -p or -n"), "{error}");
    let plan = Plan::of(&too_long[..1], model.spec(), &quick(3));
    assert_eq!((plan.rows, plan.passes, plan.tokens), (1, 7, 28));
    assert!(plan.cache_bytes > 0);
}
