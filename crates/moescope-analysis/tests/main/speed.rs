//! Time stays linear in the trace.

use std::hint::black_box;
use std::time::{Duration, Instant};

use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{Options, RunData, analyze_data};

use crate::support::{Shape, run};

/// All metrics over 8 million decisions with the default options, intervals included. It takes about
/// a second; the bound is for loaded machines and would still catch a quadratic step.
#[test]
fn millions_of_decisions() {
    let shape = Shape {
        domains: &["a", "b", "c", "d", "e"],
        sequences_per_domain: 200,
        tokens: 125,
        layers: 8,
        experts: 64,
        top_k: 8,
    };
    // A cheap skewed choice: distinct, and not the same for all domains.
    let data = run(shape, 1, |domain, _, _, rng, chosen| {
        let start = rng.below(8 + domain) as u16;
        chosen.extend((0..8).map(|rank| (start + rank * 7) % 64));
    });
    let decisions = data.layers.iter().map(|layer| layer.ids.len()).sum::<usize>();
    assert_eq!(decisions, 8_000_000);
    let start = Instant::now();
    let analysis = analyze_data(&data, &Options::default());
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.1} million decisions/s, {} rows", 8.0 / seconds, analysis.rows.len());
    assert!(seconds < 30.0, "{seconds} s");
}

/// How many times as long `work` takes on the second as on the first: the least of the quotients of
/// the medians and of the minima of `rounds` times of each, taken in turns. Other work on the machine
/// makes times longer, not shorter, and hits both.
fn growth<T>(inputs: [&T; 2], rounds: usize, work: impl Fn(&T)) -> f64 {
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..rounds {
        for (times, input) in times.iter_mut().zip(inputs) {
            let start = Instant::now();
            work(input);
            times.push(start.elapsed());
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let ratio = |at: usize| times[1][at].as_secs_f64() / times[0][at].as_secs_f64();
    ratio(0).min(ratio(rounds / 2))
}

/// The least growth of up to four attempts, which end where it is below [`DOUBLING`]: what else the machine
/// does may make one look worse, and a quadratic step is there in all of them.
fn doubling<T>(inputs: [&T; 2], rounds: usize, work: impl Fn(&T)) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..4 {
        least = least.min(growth(inputs, rounds, &work));
        if least < DOUBLING {
            break;
        }
    }
    least
}

/// Most that twice the trace may take. Linear work takes 2 and quadratic work 4 times as long.
const DOUBLING: f64 = 2.5;

#[test]
fn twice_the_trace_takes_twice_as_long() {
    // Without resamples, which cost the same for any trace, so that what grows is most of the time. Twice
    // as many sequences, and twice as long ones.
    let made = Synthetic {
        domains: 4,
        sequences: 20,
        prompt: 384,
        generated: 128,
        layers: 8,
        experts: 32,
        top_k: 4,
        output_norms: true,
        ..Synthetic::default()
    };
    let data = made.generate().unwrap();
    let longer = Synthetic { prompt: 768, generated: 256, ..made }.generate().unwrap();
    let more = Synthetic { sequences: 40, ..made }.generate().unwrap();
    let options = Options { resamples: 0, ..Options::default() };
    let all = |data: &RunData| {
        black_box(analyze_data(data, &options));
    };
    for (what, twice) in [("sequences twice as long", &longer), ("twice as many sequences", &more)]
    {
        assert_eq!(twice.len(), 2 * data.len());
        let times = doubling([&data, twice], 5, all);
        println!("{what}: {times:.2} times the time");
        assert!(times < DOUBLING, "{what}: {times:.2} times the time");
    }
}

/// The judge of the test above sees a quadratic step.
#[test]
fn quadratic_work_is_seen() {
    let pairs = |numbers: &Vec<u32>| {
        let equal = |n: &u32| numbers.iter().filter(|other| *other == n).count();
        black_box(numbers.iter().map(equal).sum::<usize>());
    };
    let numbers = |n: u32| (0..n).map(|n| n.wrapping_mul(2_654_435_761)).collect::<Vec<u32>>();
    let times = doubling([&numbers(4_000), &numbers(8_000)], 25, pairs);
    assert!(times > DOUBLING, "{times:.2} times the time");
    // Steps that wait for each other and read nothing: a list that just leaves a cache grows by more than its
    // length.
    let steps = |steps: &u32| {
        black_box((0..*steps).fold(1u32, |x, n| (x ^ n).wrapping_mul(2_654_435_761)));
    };
    let times = doubling([&4_000_000, &8_000_000], 9, steps);
    assert!(times < DOUBLING, "{times:.2} times the time");
}
