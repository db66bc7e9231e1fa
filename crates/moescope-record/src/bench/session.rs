//! The protocol: cold passes, facts, warm-ups, then samples of all rows and arms in turns.
//!
//! 1. Row after row, each with a cache of its own and no other (the ids of earlier rows stay): the depth is filled, the first pass is timed
//!    and kept as `cold`, a second one is observed for the facts (memory among them).
//! 2. Row after row: passes are timed and thrown away until they are stable. Every shape of every row has been
//!    through the device by now, so no shader is compiled and no variant tried within a sample.
//! 3. Rounds: each takes one sample of every row of every arm, in an order drawn anew. What the machine does
//!    meanwhile meets all of them.
//! 4. Where energy is counted and a row's samples are shorter than the counter needs: passes through the row, one
//!    after the other, for as long as it needs. Samples in turns can't be added up instead: the counter steps
//!    while other rows run, and what they use would be counted too.
//!
//! A cache is filled to its depth once for 2 to 4 and rewound between passes. Caches are kept as long as
//! they fit [`Options::cache_bytes`]; the others are filled anew for every sample, which a pass that is
//! thrown away follows.

use std::time::{Duration, Instant};

use moescope_model::{Capacity, DType, MoeModel, ops};
use moescope_trace::bench::{BenchRow, Configuration};

use super::{
    failure::{Failure, guard, is_alive},
    lane::Lane,
    plan::cache_bytes,
    rng::Rng,
    warm_up::WarmUp,
    watch::{Progress, Stage, Watch},
    workload::Workload,
};
use crate::error::Result;

/// A model among those measured in one session.
#[derive(Clone, Copy)]
pub struct Arm<'a> {
    /// The model. All arms read the same tokens in the same configurations.
    pub model: &'a dyn MoeModel,
    /// Type its weights are held in.
    pub dtype: DType,
}

/// What is measured, of which models, on what.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// One for a plain bench; two or more are measured in turns.
    pub arms: &'a [Arm<'a>],
    /// The rows.
    pub configurations: &'a [Configuration],
    /// What is read.
    pub workload: &'a Workload,
    /// How.
    pub options: Options,
}

/// How a bench goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Samples per row.
    pub samples: u32,
    /// When a row is warm.
    pub warm_up: WarmUp,
    /// Seed of the order within rounds.
    pub seed: u64,
    /// Whether facts are taken, which costs a pass per row.
    pub facts: bool,
    /// Bytes of KV caches kept between samples at most.
    pub cache_bytes: u64,
    /// What the device could hold before the model was loaded: a row that would take more is refused.
    pub capacity: Option<Capacity>,
    /// Shortest time over which the counter of energy means something.
    pub energy_over: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            samples: 5,
            warm_up: WarmUp::default(),
            seed: 0,
            facts: true,
            cache_bytes: 2 << 30,
            capacity: None,
            energy_over: Duration::ZERO,
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Rows in the order of the configurations, for each arm.
    pub arms: Vec<Vec<BenchRow>>,
    /// Whether it was stopped before its end.
    pub interrupted: bool,
    /// Rows, by arm and place, whose times were not yet stable when the warm-up ended.
    pub unstable: Vec<(usize, usize)>,
}

/// Cumulative energy of the device in joules, where it is counted.
pub type Joules<'a> = &'a mut dyn FnMut() -> Option<f64>;

impl Bench<'_> {
    /// Measures. Errors and panics of a row are kept in that row.
    ///
    /// `joules` is read before and after every sample. `progress` is told before every pass through a row and
    /// every chunk of its depth. `stop` is asked before every forward pass, outside of what is timed: once it says
    /// yes, the bench ends with what it has.
    pub fn run(
        &self,
        joules: Joules<'_>,
        progress: &mut dyn FnMut(&Progress<'_>),
        stop: &dyn Fn() -> bool,
    ) -> Measured {
        let mut session = Session::new(self, joules, progress, stop);
        let interrupted = session.run().is_err();
        session.finish(interrupted)
    }
}

/// Stopped from outside.
struct Stopped;

struct Session<'s> {
    bench: &'s Bench<'s>,
    joules: Joules<'s>,
    progress: &'s mut dyn FnMut(&Progress<'_>),
    stop: &'s dyn Fn() -> bool,
    lanes: Vec<Lane<'s>>,
    origin: Instant,
    done: u64,
    /// Passes each lane still has, as far as known.
    ahead: Vec<u64>,
}

impl<'s> Session<'s> {
    fn new(
        bench: &'s Bench<'s>,
        joules: Joules<'s>,
        progress: &'s mut dyn FnMut(&Progress<'_>),
        stop: &'s dyn Fn() -> bool,
    ) -> Self {
        let mut left = bench.options.cache_bytes;
        let mut lanes = Vec::new();
        for configuration in bench.configurations {
            for (arm, &on) in bench.arms.iter().enumerate() {
                let bytes = cache_bytes(on.model.spec(), configuration);
                let resident = bytes <= left;
                left -= if resident { bytes } else { 0 };
                lanes.push(Lane::new(arm, on, configuration, resident));
            }
        }
        let options = &bench.options;
        let each =
            1 + u64::from(options.facts) + u64::from(options.warm_up.least + options.samples);
        let ahead = vec![each; lanes.len()];
        Session { bench, joules, progress, stop, lanes, origin: Instant::now(), done: 0, ahead }
    }

    fn run(&mut self) -> Result<(), Stopped> {
        for at in 0..self.lanes.len() {
            self.first_passes(at)?;
        }
        for at in 0..self.lanes.len() {
            self.warm_up(at)?;
        }
        let mut rng = Rng::new(self.bench.options.seed);
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        for _ in 0..self.bench.options.samples {
            rng.shuffle(&mut order);
            for &at in &order {
                self.sample(at)?;
            }
        }
        for at in 0..self.lanes.len() {
            self.spend(at)?;
        }
        Ok(())
    }

    fn first_passes(&mut self, at: usize) -> Result<(), Stopped> {
        let Options { facts, capacity, .. } = self.bench.options;
        let workload = self.bench.workload;
        self.attempt(at, Stage::Cold, |lane, _, watch| {
            lane.begin(workload, capacity.as_ref(), facts, watch)
        })?;
        self.count(at, 1 + u64::from(facts));
        Ok(())
    }

    fn warm_up(&mut self, at: usize) -> Result<(), Stopped> {
        let rule = self.bench.options.warm_up;
        let (mut times, start) = (Vec::new(), Instant::now());
        while self.is_open(at) && !rule.is_done(&times, start.elapsed()) {
            self.attempt(at, Stage::WarmUp, |lane, _, watch| {
                times.push(lane.warm(watch)?);
                Ok(())
            })?;
            let expected = times.len() <= rule.least as usize;
            self.count(at, u64::from(expected));
        }
        if self.bench.options.facts && !ops::on_cpu(self.lanes[at].on.model.device()) {
            self.attempt(at, Stage::WarmUp, |lane, _, watch| lane.count_dispatches(watch))?;
        }
        let lane = &mut self.lanes[at];
        lane.unstable = lane.row.error.is_none() && !rule.is_stable(&times);
        lane.tidy();
        let least = u64::from(rule.least);
        self.count(at, least.saturating_sub(times.len() as u64));
        Ok(())
    }

    fn sample(&mut self, at: usize) -> Result<(), Stopped> {
        let origin = self.origin;
        self.attempt(at, Stage::Sample, |lane, joules, watch| lane.sample(origin, joules, watch))?;
        self.count(at, 1);
        Ok(())
    }

    /// Energy, where samples can't tell it and something counts it.
    fn spend(&mut self, at: usize) -> Result<(), Stopped> {
        let long = self.bench.options.energy_over;
        if !self.lanes[at].is_short(long) || (self.joules)().is_none() {
            return Ok(());
        }
        self.attempt(at, Stage::Energy, |lane, joules, watch| lane.spend(joules, long, watch))
    }

    /// Whether a row is still measured.
    fn is_open(&self, at: usize) -> bool {
        self.lanes[at].row.error.is_none()
    }

    /// Does something for a row unless it or the device has failed, and keeps its failure.
    fn attempt(
        &mut self,
        at: usize,
        stage: Stage,
        work: impl FnOnce(&mut Lane<'s>, Joules<'_>, &mut Watch<'_>) -> Result<()>,
    ) -> Result<(), Stopped> {
        if !self.is_open(at) {
            return Ok(());
        }
        let now = self.now(at, stage);
        let mut watch = Watch { progress: &mut *self.progress, stop: self.stop, now };
        let (lane, joules) = (&mut self.lanes[at], &mut *self.joules);
        let done = guard(|| {
            watch.tell()?;
            work(lane, joules, &mut watch)
        });
        match done {
            Ok(()) => Ok(()),
            Err(Failure::Stopped) => Err(Stopped),
            Err(Failure::Failed(reason)) => {
                self.fail(at, &reason);
                Ok(())
            }
        }
    }

    fn fail(&mut self, at: usize, reason: &str) {
        let samples = self.bench.options.samples;
        let lane = &mut self.lanes[at];
        lane.fail(reason, samples);
        if is_alive(lane.on.model) {
            return;
        }
        let device = lane.on.model.device().clone();
        // Nothing more will come from it: the other rows say so instead of failing one by one.
        let lost = format!("the device was lost in {} ({reason})", lane.configuration);
        for lane in self.lanes.iter_mut().filter(|lane| *lane.on.model.device() == device) {
            if lane.row.error.is_none() && lane.row.samples.len() < samples as usize {
                lane.fail(&lost, samples);
            }
        }
    }

    fn now(&self, at: usize, stage: Stage) -> Progress<'s> {
        let lane = &self.lanes[at];
        Progress {
            stage,
            arm: lane.arm,
            configuration: lane.configuration,
            done: self.done,
            total: self.done + self.ahead.iter().sum::<u64>(),
            left: self.left(),
        }
    }

    fn count(&mut self, at: usize, passes: u64) {
        self.done += passes;
        self.ahead[at] = self.ahead[at].saturating_sub(passes);
    }

    /// Passes ahead times what they take; rows not seen yet are taken to be as fast per token as the others.
    fn left(&self) -> Option<Duration> {
        let tokens = |lane: &Lane<'_>| {
            let row = lane.configuration;
            f64::from(row.batch) * (f64::from(row.prompt) + f64::from(row.generate))
        };
        let known = self.lanes.iter().filter_map(|lane| Some(lane.pass_ns? as f64 / tokens(lane)));
        let (sum, count) = known.fold((0.0, 0u32), |(sum, count), x| (sum + x, count + 1));
        let per_token = (count > 0).then(|| sum / f64::from(count))?;
        let ns = self.lanes.iter().zip(&self.ahead).filter(|(lane, _)| lane.row.error.is_none());
        let ns = ns.map(|(lane, &ahead)| {
            let pass = lane.pass_ns.map_or(tokens(lane) * per_token, |ns| ns as f64);
            let again = if lane.resident { 0.0 } else { lane.fill_ns as f64 + pass };
            (pass + again) * ahead as f64
        });
        Some(Duration::from_nanos(ns.sum::<f64>() as u64))
    }

    fn finish(self, interrupted: bool) -> Measured {
        let mut measured = Measured {
            arms: vec![Vec::new(); self.bench.arms.len()],
            interrupted,
            unstable: Vec::new(),
        };
        let samples = self.bench.options.samples;
        for mut lane in self.lanes {
            if interrupted && lane.row.error.is_none() && lane.row.samples.len() < samples as usize
            {
                lane.fail("interrupted", samples);
            }
            let rows = &mut measured.arms[lane.arm];
            if lane.unstable {
                measured.unstable.push((lane.arm, rows.len()));
            }
            rows.push(lane.row);
        }
        measured
    }
}
