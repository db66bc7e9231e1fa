//! Time stays linear in the trace.

use std::time::Instant;

use moescope_analysis::{Options, analyze_data};

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
