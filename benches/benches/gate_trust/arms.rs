//! One comparison: two copies of the bundled model, measured in pairs and judged.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use moescope_analysis::gate::{
    Across, Evidence, GateError, GateOptions, Look, Outcome, Pair, TIMES, Verdict, judge_pairs,
};
use moescope_benches::Fixture;
use moescope_model::{DType, KvCache, LogitsFor, ModelSpec, MoeModel, Observer};
use moescope_record::{
    bench::{Arm, Bench, Options, WarmUp, Workload},
    inject::inject,
};
use moescope_trace::{
    BenchResult, Fingerprint,
    bench::{BENCH_KIND, BENCH_SCHEMA_VERSION, BenchRow, Configuration},
    manifest::Injected,
};

use crate::{Plan, ledger::Kind};

/// What a sample is: a prompt and some tokens after it.
pub(crate) const PROMPT: u32 = 16;
pub(crate) const GENERATE: u32 = 3;

/// One of several arms over the same weights: where they lie in memory is the same for all.
struct Shared(Arc<dyn MoeModel>);

impl MoeModel for Shared {
    fn spec(&self) -> &ModelSpec {
        self.0.spec()
    }

    fn device(&self) -> &Device {
        self.0.device()
    }

    fn forward(
        &self,
        ids: Tensor<2, Int>,
        cache: &mut KvCache,
        observer: &mut dyn Observer,
        logits: LogitsFor,
    ) -> moescope_model::Result<Tensor<2>> {
        self.0.forward(ids, cache, observer, logits)
    }

    fn head(&self, normed: Tensor<2>) -> Tensor<2> {
        self.0.head(normed)
    }
}

/// What is measured.
pub(crate) struct Subject {
    fixture: Fixture,
    workload: Workload,
    fingerprint: Fingerprint,
    configurations: [Configuration; 1],
    options: GateOptions,
    slowdown: f64,
}

/// What the gate saw.
pub(crate) struct Seen {
    /// A time regressed.
    pub(crate) slower: bool,
    /// Something else did.
    pub(crate) different: bool,
    /// Pairs of the first look, and of the second where times looked worse.
    pub(crate) pairs: [usize; 2],
    /// Ratios and intervals of the first look.
    pub(crate) times: String,
}

impl Subject {
    pub(crate) fn open(plan: &Plan) -> Self {
        let fixture = Fixture::load();
        let workload = Workload::text(fixture.tokens().to_vec(), fixture.model().spec());
        let configuration = Configuration {
            workload: "text".into(),
            prompt: PROMPT,
            generate: GENERATE,
            depth: 0,
            batch: 1,
        };
        Self {
            fingerprint: Fingerprint::of_run(&fixture.manifest()),
            workload: workload.expect("the text is in the vocabulary"),
            configurations: [configuration],
            fixture,
            options: GateOptions {
                pairs: plan.pairs as usize,
                max_pairs: plan.max_pairs as usize,
                ..GateOptions::default()
            },
            slowdown: plan.slowdown,
        }
    }

    /// Compares the build with itself or with one that has a fault.
    pub(crate) fn compare(&self, kind: Kind, seed: u64) -> Seen {
        let faults = match kind {
            Kind::Same => None,
            Kind::Slow => Some(Injected { slowdown_percent: self.slowdown, routing: false }),
            Kind::Routing => Some(Injected { slowdown_percent: 0.0, routing: true }),
        };
        let model: Arc<dyn MoeModel> = Arc::from(self.fixture.another());
        let base = inject(Box::new(Shared(Arc::clone(&model))), None);
        let new = inject(Box::new(Shared(model)), faults);
        // Pairs of the first and of the second look. Every measurement draws an order of its own.
        let (mut looks, mut turn) = ([0, 0], 0);
        let measure = |look, count: usize| {
            looks[usize::from(look == Look::Second)] += count;
            turn += 1;
            let order = 1000 * seed + turn;
            Ok(Some(self.pairs(base.as_ref(), new.as_ref(), faults, count, order)))
        };
        let verdict: Result<Verdict, GateError> =
            judge_pairs(measure, &self.options, Across::default());
        seen(&verdict.expect("measurements of one machine compare"), looks)
    }

    /// Pairs of measurements, a sample of each model to a pair.
    fn pairs(
        &self,
        base: &dyn MoeModel,
        new: &dyn MoeModel,
        faults: Option<Injected>,
        count: usize,
        seed: u64,
    ) -> Vec<Pair> {
        let bench = Bench {
            arms: &[base, new].map(|model| Arm { model, dtype: DType::F32 }),
            configurations: &self.configurations,
            workload: &self.workload,
            options: Options {
                samples: count as u32,
                warm_up: WarmUp { least: 2, most: 2, ..WarmUp::default() },
                seed,
                ..Options::default()
            },
        };
        let measured = bench.run(&mut || None, &mut |_| {}, &|| false);
        let [base, new] = measured.arms.try_into().expect("as many as were given");
        let [base, new] = [self.evidence("base", None, base), self.evidence("new", faults, new)];
        base.into_iter().zip(new).collect()
    }

    /// Every sample of a measurement as one of its own.
    fn evidence(
        &self,
        name: &str,
        injected: Option<Injected>,
        rows: Vec<BenchRow>,
    ) -> Vec<Evidence> {
        let [row] = <[BenchRow; 1]>::try_from(rows).expect("as many as were given");
        assert_eq!(row.error, None, "the bundled model runs");
        let mut fingerprint = self.fingerprint.clone();
        fingerprint.model.injected = injected;
        let of = |sample: &_| {
            let result = BenchResult {
                kind: BENCH_KIND.into(),
                schema_version: BENCH_SCHEMA_VERSION,
                id: name.into(),
                created_at: String::new(),
                command: Vec::new(),
                fingerprint: fingerprint.clone(),
                peaks: None,
                workload_hash: None,
                energy: None,
                rows: vec![BenchRow { samples: vec![Clone::clone(sample)], ..row.clone() }],
            };
            Evidence::of_bench(name, &[result]).expect("times are positive")
        };
        row.samples.iter().map(of).collect()
    }
}

fn seen(verdict: &Verdict, pairs: [usize; 2]) -> Seen {
    let regressed = || verdict.checks.iter().filter(|check| check.outcome == Outcome::Regressed);
    let times = TIMES.iter().filter_map(|name| {
        let check = verdict.checks.iter().find(|check| check.metric == *name)?;
        let (low, high) = check.interval?;
        Some(format!("{name} x{:.3} ({low:.3} to {high:.3})", check.ratio?))
    });
    Seen {
        slower: regressed().any(|check| !check.hard),
        different: regressed().any(|check| check.hard),
        pairs,
        times: times.collect::<Vec<_>>().join(", "),
    }
}
