//! One row of one model within a session.

use std::time::{Duration, Instant};

use moescope_model::{Capacity, ops};
use moescope_trace::bench::{BenchRow, Configuration, Energy, Facts, Sample};

use super::{
    facts::observe,
    pass::{Filled, Inputs, launches, timed},
    plan::check_room,
    rss::PeakRss,
    session::{Arm, Joules},
    watch::Watch,
    workload::Workload,
};
use crate::{error::Result, recorder::device as failed};

pub(super) struct Lane<'a> {
    pub(super) arm: usize,
    pub(super) on: Arm<'a>,
    pub(super) configuration: &'a Configuration,
    pub(super) row: BenchRow,
    inputs: Option<Inputs<'a>>,
    /// Kept between samples.
    filled: Option<Filled>,
    /// Whether its cache may be kept.
    pub(super) resident: bool,
    /// Time of the last pass, and of filling the depth.
    pub(super) pass_ns: Option<u64>,
    pub(super) fill_ns: u64,
    pub(super) unstable: bool,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        arm: usize,
        on: Arm<'a>,
        configuration: &'a Configuration,
        resident: bool,
    ) -> Self {
        let row = BenchRow {
            configuration: configuration.clone(),
            error: None,
            cold: None,
            warm_ups: 0,
            samples: Vec::new(),
            facts: Facts::default(),
            energy: None,
        };
        Lane {
            arm,
            on,
            configuration,
            row,
            inputs: None,
            filled: None,
            resident,
            pass_ns: None,
            fill_ns: 0,
            unstable: false,
        }
    }

    /// The cold pass, and the observed one if `facts` are asked for, with no other cache around.
    pub(super) fn begin(
        &mut self,
        workload: &'a Workload,
        capacity: Option<&Capacity>,
        facts: bool,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let Arm { model, dtype } = self.on;
        let device = model.device();
        if let Some(capacity) = capacity {
            check_room(self.configuration, model.spec(), dtype, device, capacity)?;
        }
        // What earlier rows left in the pools is not this row's.
        device.sync().map_err(|e| failed(&e))?;
        device.memory_cleanup();
        let mut rss = PeakRss::start();
        let inputs = Inputs::new(model, workload, self.configuration)?;
        let mut filled = inputs.fill(model, watch)?;
        self.fill_ns = filled.ns;
        let cold = timed(model, filled.rewound(device)?, &inputs, watch)?;
        self.pass_ns = Some(cold.total_ns());
        self.row.cold = Some(cold);
        if facts {
            let cache = filled.rewound(device)?;
            self.row.facts = observe(self.on, cache, &inputs, self.configuration, &mut rss, watch)?;
        }
        self.inputs = Some(inputs);
        Ok(())
    }

    /// A pass that is thrown away; its time. The cache is kept even where it has to go once the row is warm.
    pub(super) fn warm(&mut self, watch: &mut Watch<'_>) -> Result<u64> {
        let mut filled = self.take_filled(watch)?;
        let sample = self.pass(&mut filled, watch)?;
        self.row.warm_ups += 1;
        self.filled = Some(filled);
        Ok(sample.total_ns())
    }

    /// Gives the cache up where it may not be kept.
    pub(super) fn tidy(&mut self) {
        if !self.resident {
            self.filled = None;
        }
    }

    /// Kernels launched, once everything is tuned and fused as it stays; none where two passes differ.
    pub(super) fn count_dispatches(&mut self, watch: &mut Watch<'_>) -> Result<()> {
        let device = self.on.model.device();
        if ops::on_cpu(device) {
            return Ok(());
        }
        let mut filled = self.take_filled(watch)?;
        let inputs = self.inputs();
        let first = launches(self.on.model, filled.rewound(device)?, inputs, watch)?;
        let second = launches(self.on.model, filled.rewound(device)?, inputs, watch)?;
        self.row.facts.dispatches = first.filter(|_| first == second);
        self.filled = Some(filled);
        Ok(())
    }

    /// One sample; `origin` is the start of the bench.
    pub(super) fn sample(
        &mut self,
        origin: Instant,
        joules: Joules<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let mut filled = self.take_filled(watch)?;
        if !self.resident {
            // Touches the memory of a cache that is new.
            self.pass(&mut filled, watch)?;
        }
        let model = self.on.model;
        // Going back to the depth is no part of the sample.
        let cache = filled.rewound(model.device())?;
        let before = joules();
        let at_ns = origin.elapsed().as_nanos() as u64;
        let sample = timed(model, cache, self.inputs(), watch)?;
        let joules = before.zip(joules()).map(|(before, after)| after - before);
        self.pass_ns = Some(sample.total_ns());
        self.row.samples.push(Sample { at_ns, joules, ..sample });
        self.filled = self.resident.then_some(filled);
        Ok(())
    }

    /// Whether a counter that needs this long tells nothing about single samples.
    pub(super) fn is_short(&self, shortest: Duration) -> bool {
        let short = |sample: &Sample| u128::from(sample.total_ns()) < shortest.as_nanos();
        self.row.samples.iter().any(short)
    }

    /// Counts the energy of passes that follow each other for `long`. A counter steps late: what it says first
    /// was used up to a step before. So passes as long as a step come before the first reading, and what both
    /// readings lack is the same.
    pub(super) fn spend(
        &mut self,
        joules: Joules<'_>,
        long: Duration,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let mut filled = self.take_filled(watch)?;
        self.repeat(&mut filled, long / 10, watch)?;
        let (start, before) = (Instant::now(), joules());
        let passes = self.repeat(&mut filled, long, watch)?;
        let (ns, after) = (start.elapsed().as_nanos() as u64, joules());
        let used = before.zip(after).map(|(before, after)| after - before);
        self.row.energy = used.map(|joules| Energy { joules, ns, passes });
        self.filled = self.resident.then_some(filled);
        Ok(())
    }

    /// Gives the row up; `samples` were asked for.
    pub(super) fn fail(&mut self, reason: &str, samples: u32) {
        let taken = self.row.samples.len();
        self.row.error = Some(format!("{reason} ({taken} of {samples} samples)"));
        (self.filled, self.inputs) = (None, None);
    }

    /// What it reads.
    fn inputs(&self) -> &Inputs<'a> {
        match &self.inputs {
            Some(inputs) => inputs,
            // The first passes made it, or the row has failed and is not measured.
            None => unreachable!("a row without inputs goes on"),
        }
    }

    /// The cache that was kept, or a new one filled to the depth.
    fn take_filled(&mut self, watch: &mut Watch<'_>) -> Result<Filled> {
        if let Some(filled) = self.filled.take() {
            return Ok(filled);
        }
        let filled = self.inputs().fill(self.on.model, watch)?;
        self.fill_ns = filled.ns;
        Ok(filled)
    }

    /// One timed pass from the depth.
    fn pass(&mut self, filled: &mut Filled, watch: &Watch<'_>) -> Result<Sample> {
        let cache = filled.rewound(self.on.model.device())?;
        let sample = timed(self.on.model, cache, self.inputs(), watch)?;
        self.pass_ns = Some(sample.total_ns());
        Ok(sample)
    }

    /// Passes from the depth, one after the other, for as long as this; their number.
    fn repeat(&mut self, filled: &mut Filled, long: Duration, watch: &Watch<'_>) -> Result<u64> {
        let (start, mut passes) = (Instant::now(), 0);
        while start.elapsed() < long {
            self.pass(filled, watch)?;
            passes += 1;
        }
        Ok(passes)
    }
}
