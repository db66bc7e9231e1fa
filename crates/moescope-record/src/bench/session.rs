//! The protocol: cold passes, facts, warm-ups, then samples of all rows and arms in turns.
//!
//! 1. Row after row, each with a cache of its own and no other (the ids of earlier rows stay): the depth is filled, the first pass is timed
//!    and kept as `cold`, a second one is observed for the facts (memory among them).
//! 2. Row after row: passes are timed and thrown away until they are stable. Every shape of every row has been
//!    through the device by now, so no shader is compiled and no variant tried within a sample.
//! 3. Rounds: each takes one sample of every row of every arm, in an order drawn anew. What the machine does
//!    meanwhile meets all of them.
//!
//! A cache is filled to its depth once for 2 and 3 and rewound between passes. Caches are kept as long as
//! they fit [`Options::cache_bytes`]; the others are filled anew for every sample, which a pass that is
//! thrown away follows.

use std::time::{Duration, Instant};

use moescope_model::{Capacity, DType, MoeModel, ops};
use moescope_trace::bench::{BenchRow, Configuration, Facts, Sample};

use super::{
    facts::observe,
    failure::{guard, is_alive},
    pass::{Filled, Inputs, launches, timed, total_ns},
    plan::{cache_bytes, check_room},
    rng::Rng,
    rss::PeakRss,
    workload::Workload,
};
use crate::{error::Result, recorder::device as failed};

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
        }
    }
}

/// When a row is warm: its last [`least`](WarmUp::least) passes lie within a tolerance of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmUp {
    /// Passes at least, and those that are compared.
    pub least: u32,
    /// Passes at most.
    pub most: u32,
    /// Share by which the slowest of them may be slower than the fastest.
    pub tolerance: f64,
    /// Time after which a row counts as warm once it has had one pass.
    pub limit: Duration,
}

impl Default for WarmUp {
    fn default() -> Self {
        WarmUp { least: 3, most: 10, tolerance: 0.05, limit: Duration::from_secs(20) }
    }
}

impl WarmUp {
    fn is_done(&self, times: &[u64], elapsed: Duration) -> bool {
        let stable = times.len() >= self.least as usize && self.is_stable(times);
        stable || times.len() >= self.most as usize || (!times.is_empty() && elapsed >= self.limit)
    }

    fn is_stable(&self, times: &[u64]) -> bool {
        let last = &times[times.len().saturating_sub(self.least as usize)..];
        let (Some(&low), Some(&high)) = (last.iter().min(), last.iter().max()) else { return true };
        high as f64 <= low as f64 * (1.0 + self.tolerance)
    }
}

/// What a bench is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// First passes, and the pass that is observed.
    Cold,
    /// Passes that are thrown away.
    WarmUp,
    /// Samples.
    Sample,
}

/// How far a bench is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// What comes next.
    pub stage: Stage,
    /// Of which arm.
    pub arm: usize,
    /// Of which row.
    pub configuration: &'a Configuration,
    /// Passes done.
    pub done: u64,
    /// Passes in all, as far as known.
    pub total: u64,
    /// Time left, from the times of the rows' passes so far.
    pub left: Option<Duration>,
}

/// What a bench is told between passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Stop here and keep what there is.
    Stop,
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
pub type Energy<'a> = &'a mut dyn FnMut() -> Option<f64>;

impl Bench<'_> {
    /// Measures. Errors and panics of a row are kept in that row.
    ///
    /// `progress` is told before every pass and may stop the bench. `energy` is read before and after every
    /// sample.
    pub fn run(
        &self,
        energy: Energy<'_>,
        progress: &mut dyn FnMut(&Progress<'_>) -> Flow,
    ) -> Measured {
        let mut session = Session::new(self, energy, progress);
        let interrupted = session.run().is_err();
        session.finish(interrupted)
    }
}

/// Stopped from outside.
struct Stopped;

/// One row of one arm.
struct Lane<'a> {
    arm: usize,
    on: Arm<'a>,
    row: BenchRow,
    inputs: Option<Inputs<'a>>,
    /// Kept between samples.
    filled: Option<Filled>,
    resident: bool,
    /// Time of the last pass, and of filling the depth.
    pass_ns: Option<u64>,
    fill_ns: u64,
    unstable: bool,
}

struct Session<'s> {
    bench: &'s Bench<'s>,
    energy: Energy<'s>,
    progress: &'s mut dyn FnMut(&Progress<'_>) -> Flow,
    lanes: Vec<Lane<'s>>,
    origin: Instant,
    done: u64,
    /// Passes each lane still has, as far as known.
    ahead: Vec<u64>,
}

impl<'s> Session<'s> {
    fn new(
        bench: &'s Bench<'s>,
        energy: Energy<'s>,
        progress: &'s mut dyn FnMut(&Progress<'_>) -> Flow,
    ) -> Self {
        let mut left = bench.options.cache_bytes;
        let mut lanes = Vec::new();
        for configuration in bench.configurations {
            for (arm, &on) in bench.arms.iter().enumerate() {
                let bytes = cache_bytes(on.model.spec(), configuration);
                let resident = bytes <= left;
                left -= if resident { bytes } else { 0 };
                let row = BenchRow {
                    configuration: configuration.clone(),
                    error: None,
                    cold: None,
                    warm_ups: 0,
                    samples: Vec::new(),
                    facts: Facts::default(),
                };
                lanes.push(Lane {
                    arm,
                    on,
                    row,
                    inputs: None,
                    filled: None,
                    resident,
                    pass_ns: None,
                    fill_ns: 0,
                    unstable: false,
                });
            }
        }
        let options = &bench.options;
        let each =
            1 + u64::from(options.facts) + u64::from(options.warm_up.least + options.samples);
        let ahead = vec![each; lanes.len()];
        Session { bench, energy, progress, lanes, origin: Instant::now(), done: 0, ahead }
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
        Ok(())
    }

    /// The cold pass and the observed one, with no other cache around.
    fn first_passes(&mut self, at: usize) -> Result<(), Stopped> {
        self.tell(at, Stage::Cold)?;
        let Options { facts, capacity, .. } = self.bench.options;
        let workload = self.bench.workload;
        self.attempt(at, |lane| {
            let device = lane.on.model.device();
            if let Some(capacity) = &capacity {
                let spec = lane.on.model.spec();
                check_room(&lane.row.configuration, spec, lane.on.dtype, device, capacity)?;
            }
            // What earlier rows left in the pools is not this row's.
            device.sync().map_err(|e| failed(&e))?;
            device.memory_cleanup();
            let mut rss = PeakRss::start();
            let inputs = Inputs::new(lane.on.model, workload, &lane.row.configuration)?;
            let mut filled = inputs.fill(lane.on.model)?;
            lane.fill_ns = filled.ns;
            let cold = timed(lane.on.model, filled.rewound(device)?, &inputs)?;
            lane.pass_ns = Some(total_ns(&cold));
            lane.row.cold = Some(cold);
            if facts {
                let cache = filled.rewound(device)?;
                let configuration = &lane.row.configuration;
                lane.row.facts = observe(lane.on, cache, &inputs, configuration, &mut rss)?;
            }
            lane.inputs = Some(inputs);
            Ok(())
        });
        self.count(at, 1 + u64::from(facts));
        Ok(())
    }

    fn warm_up(&mut self, at: usize) -> Result<(), Stopped> {
        let rule = self.bench.options.warm_up;
        let (mut times, start) = (Vec::new(), Instant::now());
        while self.is_open(at) && !rule.is_done(&times, start.elapsed()) {
            self.tell(at, Stage::WarmUp)?;
            self.attempt(at, |lane| {
                let mut filled = lane.take_filled()?;
                let sample = lane.pass(&mut filled)?;
                times.push(total_ns(&sample));
                lane.row.warm_ups += 1;
                // Kept until the row is warm even where it has to go then.
                lane.filled = Some(filled);
                Ok(())
            });
            let expected = times.len() <= rule.least as usize;
            self.count(at, u64::from(expected));
        }
        if self.bench.options.facts {
            self.attempt(at, Lane::count_dispatches);
        }
        let lane = &mut self.lanes[at];
        lane.unstable = lane.row.error.is_none() && !rule.is_stable(&times);
        if !lane.resident {
            lane.filled = None;
        }
        let least = u64::from(rule.least);
        self.count(at, least.saturating_sub(times.len() as u64));
        Ok(())
    }

    fn sample(&mut self, at: usize) -> Result<(), Stopped> {
        if self.is_open(at) {
            self.tell(at, Stage::Sample)?;
            let (origin, energy) = (self.origin, &mut self.energy);
            // Borrowed apart from the lanes.
            let lane = &mut self.lanes[at];
            let taken = guard(|| lane.sample(origin, energy));
            self.settle(at, taken);
        }
        self.count(at, 1);
        Ok(())
    }

    /// Whether a row is still measured.
    fn is_open(&self, at: usize) -> bool {
        self.lanes[at].row.error.is_none()
    }

    /// Does something for a row unless it or the device has failed, and keeps its failure.
    fn attempt(&mut self, at: usize, work: impl FnOnce(&mut Lane<'s>) -> Result<()>) {
        if self.is_open(at) {
            let lane = &mut self.lanes[at];
            let done = guard(|| work(lane));
            self.settle(at, done);
        }
    }

    fn settle(&mut self, at: usize, done: Result<(), String>) {
        let Err(reason) = done else { return };
        let samples = self.bench.options.samples;
        let lane = &mut self.lanes[at];
        lane.fail(&reason, samples);
        if is_alive(lane.on.model) {
            return;
        }
        let device = lane.on.model.device().clone();
        // Nothing more will come from it: the other rows say so instead of failing one by one.
        let lost = format!("the device was lost in {} ({reason})", lane.row.configuration);
        for lane in self.lanes.iter_mut().filter(|lane| *lane.on.model.device() == device) {
            if lane.row.error.is_none() && lane.row.samples.len() < samples as usize {
                lane.fail(&lost, samples);
            }
        }
    }

    fn tell(&mut self, at: usize, stage: Stage) -> Result<(), Stopped> {
        let lane = &self.lanes[at];
        let progress = Progress {
            stage,
            arm: lane.arm,
            configuration: &lane.row.configuration,
            done: self.done,
            total: self.done + self.ahead.iter().sum::<u64>(),
            left: self.left(),
        };
        match (self.progress)(&progress) {
            Flow::Continue => Ok(()),
            Flow::Stop => Err(Stopped),
        }
    }

    fn count(&mut self, at: usize, passes: u64) {
        self.done += passes;
        self.ahead[at] = self.ahead[at].saturating_sub(passes);
    }

    /// Passes ahead times what they take; rows not seen yet are taken to be as fast per token as the others.
    fn left(&self) -> Option<Duration> {
        let tokens = |lane: &Lane<'_>| {
            let row = &lane.row.configuration;
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

impl<'a> Lane<'a> {
    /// What it reads.
    fn inputs(&self) -> &Inputs<'a> {
        match &self.inputs {
            Some(inputs) => inputs,
            // The first passes made it, or the row has failed and is not measured.
            None => unreachable!("a row without inputs goes on"),
        }
    }

    /// The cache that was kept, or a new one filled to the depth.
    fn take_filled(&mut self) -> Result<Filled> {
        if let Some(filled) = self.filled.take() {
            return Ok(filled);
        }
        let filled = self.inputs().fill(self.on.model)?;
        self.fill_ns = filled.ns;
        Ok(filled)
    }

    /// One timed pass from the depth.
    fn pass(&mut self, filled: &mut Filled) -> Result<Sample> {
        let cache = filled.rewound(self.on.model.device())?;
        let sample = timed(self.on.model, cache, self.inputs())?;
        self.pass_ns = Some(total_ns(&sample));
        Ok(sample)
    }

    /// Kernels launched, once everything is tuned and fused as it stays; none where two passes differ.
    fn count_dispatches(&mut self) -> Result<()> {
        let device = self.on.model.device();
        if ops::on_cpu(device) {
            return Ok(());
        }
        let mut filled = self.take_filled()?;
        let inputs = self.inputs();
        let first = launches(self.on.model, filled.rewound(device)?, inputs)?;
        let second = launches(self.on.model, filled.rewound(device)?, inputs)?;
        self.row.facts.dispatches = first.filter(|_| first == second);
        self.filled = Some(filled);
        Ok(())
    }

    fn sample(&mut self, origin: Instant, energy: &mut Energy<'_>) -> Result<()> {
        let mut filled = self.take_filled()?;
        if !self.resident {
            // Touches the memory of a cache that is new.
            self.pass(&mut filled)?;
        }
        let model = self.on.model;
        // Going back to the depth is no part of the sample.
        let cache = filled.rewound(model.device())?;
        let before = energy();
        let at_ns = origin.elapsed().as_nanos() as u64;
        let sample = timed(model, cache, self.inputs())?;
        let joules = before.zip(energy()).map(|(before, after)| after - before);
        self.pass_ns = Some(total_ns(&sample));
        self.row.samples.push(Sample { at_ns, joules, ..sample });
        self.filled = self.resident.then_some(filled);
        Ok(())
    }

    /// Gives the row up; `samples` were asked for.
    fn fail(&mut self, reason: &str, samples: u32) {
        let taken = self.row.samples.len();
        self.row.error = Some(format!("{reason} ({taken} of {samples} samples)"));
        (self.filled, self.inputs) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_is_stable_or_long_enough() {
        let rule = WarmUp { least: 3, most: 5, tolerance: 0.05, limit: Duration::from_secs(1) };
        let soon = Duration::ZERO;
        assert!(!rule.is_done(&[], Duration::from_secs(9)), "one pass at least");
        assert!(!rule.is_done(&[100, 100], soon));
        assert!(rule.is_done(&[100, 104, 102], soon));
        assert!(!rule.is_done(&[200, 104, 102], soon));
        assert!(rule.is_done(&[200, 104, 102, 100], soon));
        assert!(
            rule.is_done(&[500, 400, 300, 200, 100], soon) && !rule.is_stable(&[300, 200, 100])
        );
        assert!(rule.is_done(&[200], Duration::from_secs(1)));
    }
}
