//! Whether the gate can be trusted: comparisons of a build with itself, with a slow-down of 10 % and with
//! another routing, on real measurements of the bundled model.
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo bench -p moescope-benches --bench gate_trust -- --full --out trust.tsv
//! cargo bench -p moescope-benches --bench gate_trust -- --aa 20 --power 20 --routing 0
//! RAYON_NUM_THREADS=1 cargo bench -p moescope-benches --bench gate_trust -- \
//!     --processes target/release/moescope --count 100 --out processes.tsv
//! ```
//!
//! There are two ways to compare, and neither says how the other does:
//!
//! - *In one process* (the default): pairs of measurements by the bench protocol, a verdict with the default
//!   thresholds, more pairs until no interval is wider than the threshold, and other pairs where a time looks worse.
//!   Base and new are one set of weights, loaded anew for every comparison, in one process; a pair is one short
//!   sample of each, in an order drawn anew: the closer in time, the more of what the machine does meets both. This
//!   asks about the statistics, with little noise and many pairs in a short time.
//! - *In processes of their own* (`--processes MOESCOPE`): the gate as it ships, `gate --run CMD --vs CMD` of that
//!   binary with its defaults, every measurement a process that lays out its memory anew.
//!
//! Every second comparison of a build with itself has a process beside it that computes for random stretches on
//! every core.
//!
//! `--full` makes 200, 100 and 100 comparisons, some 2.5 s each and 5.5 s where a time looks worse; `--out` keeps
//! each as a line and goes on after those that are there. `RAYON_NUM_THREADS=1` takes the waking of threads out of
//! the times: on a virtual machine of 2 cores it narrowed the intervals of prefill from 12 % to 2 %. Without numbers, as `cargo test` runs it, there are a few.

mod arms;
mod company;
mod ledger;
mod processes;

use std::{fmt, path::PathBuf, process::ExitCode, time::Instant};

use arms::{Seen, Subject};
use company::Company;
use ledger::{Kind, Ledger, Line};
use processes::Processes;

/// Comparisons of each kind, and how they are made.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    aa: usize,
    power: usize,
    routing: usize,
    /// Pairs a look starts with, and at most.
    pairs: u32,
    max_pairs: u32,
    /// Injected, percent.
    slowdown: f64,
}

const FULL: Plan =
    Plan { aa: 200, power: 100, routing: 100, pairs: 100, max_pairs: 500, slowdown: 10.0 };

/// In the tests. They have to hold on a machine that compiles at the same time, where 20 pairs leave
/// intervals of some 20 %: so the slow-down is of 50 %. For the numbers of comparisons see [`bound`].
const SHORT: Plan = Plan { aa: 5, power: 6, routing: 3, pairs: 20, max_pairs: 40, slowdown: 50.0 };

/// The share of false alarms and of missed slow-downs that are allowed.
const ALARMS: f64 = 0.01;
const MISSES: f64 = 0.05;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == company::FLAG) {
        company::work(arguments.get(1).and_then(|seed| seed.parse().ok()).unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    match options(&arguments) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(asked)) => match asked.start() {
            Ok(held) => ExitCode::from(u8::from(!held)),
            Err(problem) => refuse(&problem),
        },
        Err(problem) => refuse(&problem),
    }
}

fn refuse(problem: &str) -> ExitCode {
    eprintln!("gate_trust: {problem}");
    ExitCode::from(2)
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { pairs, max_pairs, slowdown, .. } = self;
        let threads = threads();
        let tokens = format!("{} + {} tokens", arms::PROMPT, arms::GENERATE);
        write!(
            f,
            "{pairs} to {max_pairs} pairs of {tokens}, {slowdown} % slower, {threads} threads"
        )
    }
}

/// Threads that what is measured computes with.
pub(crate) fn threads() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| threads.to_string())
}

/// What was asked for.
struct Asked {
    plan: Plan,
    /// Where what came out is kept.
    out: Option<PathBuf>,
    /// The binary whose gate compares, in processes of its own; and numbers of pairs other than its defaults.
    binary: Option<(PathBuf, [Option<u32>; 2])>,
}

impl Asked {
    /// Makes all comparisons; whether what has to hold holds.
    fn start(self) -> Result<bool, String> {
        let Self { plan, out, binary } = self;
        match binary {
            None => {
                let ledger = Ledger::open(out, &plan.to_string())?;
                let subject = Subject::open(&plan);
                compare_all(plan, ledger, |kind, number| Ok(subject.compare(kind, number)))
            }
            Some((binary, pairs)) => {
                let gate = Processes::new(&binary, &plan, pairs)?;
                let ledger = Ledger::open(out, &gate.to_string())?;
                compare_all(plan, ledger, |kind, _| gate.compare(kind))
            }
        }
    }
}

/// What to compare and where to keep it; nothing where a test filter means other tests.
fn options(arguments: &[String]) -> Result<Option<Asked>, String> {
    let mut plan = Plan { aa: 0, power: 0, routing: 0, ..FULL };
    let (mut out, mut binary, mut pairs, mut max_pairs) = (None, None, None, None);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        let mut number = || {
            let text = value()?;
            text.parse::<u32>().map_err(|_| format!("{argument} {text}: expected a number"))
        };
        match argument.as_str() {
            "--full" => plan = FULL,
            "--aa" => plan.aa = number()? as usize,
            "--power" => plan.power = number()? as usize,
            "--routing" => plan.routing = number()? as usize,
            "--count" => {
                let count = number()? as usize;
                plan = Plan { aa: count, power: count, routing: count, ..plan };
            }
            "--processes" => binary = Some(PathBuf::from(value()?)),
            "--pairs" => pairs = Some(number()?),
            "--max-pairs" => max_pairs = Some(number()?),
            "--slowdown" => plan.slowdown = f64::from(number()?),
            "--out" => out = Some(PathBuf::from(value()?)),
            // What cargo and the test harness of the other targets understand.
            "--bench" | "--test" | "--nocapture" | "--quick" | "-q" | "--quiet" => {}
            "--list" => return Ok(None),
            filter if !filter.starts_with('-') => {
                if !"gate_trust".contains(filter) {
                    return Ok(None);
                }
            }
            other => return Err(format!("unknown option {other}")),
        }
    }
    let asked = plan.aa + plan.power + plan.routing > 0;
    let mut plan = if asked { plan } else { SHORT };
    plan.pairs = pairs.unwrap_or(plan.pairs);
    plan.max_pairs = max_pairs.unwrap_or(plan.max_pairs);
    let binary = binary.map(|path| (path, [pairs, max_pairs]));
    Ok(Some(Asked { plan, out, binary }))
}

fn compare_all(
    plan: Plan,
    mut ledger: Ledger,
    compare: impl Fn(Kind, u64) -> Result<Seen, String>,
) -> Result<bool, String> {
    let start = Instant::now();
    let order = order(plan);
    for (at, &(kind, number)) in order.iter().enumerate() {
        if ledger.has(kind, number) {
            continue;
        }
        // Every second one of those with nothing injected.
        let company =
            (kind == Kind::Same && number % 2 == 1).then(|| Company::start(number as u64));
        let begun = Instant::now();
        let seen = compare(kind, number as u64)?;
        let line = Line {
            kind,
            number,
            company: company.is_some(),
            seen,
            seconds: begun.elapsed().as_secs_f64(),
            load: load(),
        };
        println!("{:>3}/{} {:>5.0} s  {line}", at + 1, order.len(), start.elapsed().as_secs_f64());
        ledger.add(line);
    }
    println!("{:.0} s", start.elapsed().as_secs_f64());
    let kinds = [
        (Kind::Same, "the same build: false alarms".to_owned()),
        (Kind::Slow, format!("{} % slower: missed", plan.slowdown)),
        (Kind::Routing, "another routing: missed".to_owned()),
    ];
    let held = kinds.map(|(kind, what)| summary(kind, &what, &ledger));
    Ok(!held.contains(&false))
}

/// Kinds in turns, so that what the machine does in the meantime meets all of them.
fn order(plan: Plan) -> Vec<(Kind, usize)> {
    let kinds = [(Kind::Same, plan.aa), (Kind::Slow, plan.power), (Kind::Routing, plan.routing)];
    let most = plan.aa.max(plan.power).max(plan.routing);
    let mut order = Vec::new();
    for step in 0..most {
        for (kind, count) in kinds {
            // Spread evenly over the steps.
            let (from, to) = (step * count / most, (step + 1) * count / most);
            order.extend((from..to).map(|number| (kind, number)));
        }
    }
    order
}

/// Prints what came of a kind; whether it holds.
fn summary(kind: Kind, what: &str, ledger: &Ledger) -> bool {
    let lines: Vec<&Line> = ledger.lines.iter().filter(|line| line.kind == kind).collect();
    if lines.is_empty() {
        return true;
    }
    let wrong = lines.iter().filter(|line| line.is_wrong()).count();
    let allowed = match kind {
        Kind::Same => bound(lines.len(), ALARMS),
        Kind::Slow => bound(lines.len(), MISSES),
        Kind::Routing => 0,
    };
    let alone = lines.iter().filter(|line| !line.company);
    let of_alone = alone.clone().count();
    let wrong_alone = alone.filter(|line| line.is_wrong()).count();
    println!(
        "{what} {wrong} of {} (alone {wrong_alone} of {of_alone}), at most {allowed}: {}",
        lines.len(),
        if wrong <= allowed { "holds" } else { "DOES NOT HOLD" }
    );
    wrong <= allowed
}

/// Errors that `count` comparisons may have at a rate of `rate`. From 100 on it is that share of them. Fewer say
/// little about a rate: there it is as many as come by chance less often than once in a thousand times, so that
/// a gate that is just good enough passes the tests.
fn bound(count: usize, rate: f64) -> usize {
    if count >= 100 {
        return (count as f64 * rate).round() as usize;
    }
    // P(X = k) of the binomial distribution, from k = 0 up.
    let mut share = (1.0 - rate).powi(count as i32);
    let (mut below, mut most) = (share, 0);
    while 1.0 - below >= 1e-3 {
        share *= (count - most) as f64 / (most + 1) as f64 * rate / (1.0 - rate);
        most += 1;
        below += share;
    }
    most
}

/// Processes that want to run, over the last minute.
fn load() -> f64 {
    let state = moescope_record::environment::machine_state(None, &Default::default());
    state.load_average.map_or(f64::NAN, |[minute, ..]| minute)
}
