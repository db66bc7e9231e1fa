//! What recording costs, as a ratio: the same generation without and with a recorder, in turn.
//!
//! Times of a shared machine drift by more than the cost, so the two are interleaved and the ratio is
//! taken pair by pair (A B B A). Prints the median ratio and its quartiles, for the passes alone (as
//! tokens per second are defined) and for the whole wall time.

use std::time::{Duration, Instant};

use moescope_benches::Fixture;

fn main() {
    // `cargo test --benches` passes arguments too; one pair then shows that it runs.
    let pairs = if std::env::args().any(|arg| arg == "--bench") { 60 } else { 1 };
    let fixture = Fixture::load();
    for (name, prompt, max_tokens) in [
        ("decode, 128 tokens after 16", 16, 128),
        ("prefill of 512 tokens", 512, 0),
        ("prefill of 256, decode of 32", 256, 32),
    ] {
        let case = fixture.case(prompt, max_tokens);
        let mut run = fixture.recorder();
        let mut once = |recording: bool| {
            let start = Instant::now();
            let passes = match recording {
                true => case.passes(Some(&mut run.recorder)),
                false => case.passes(None),
            };
            (passes, start.elapsed())
        };
        once(false);
        once(true);
        let (mut passes, mut wall) = (Vec::new(), Vec::new());
        for pair in 0..pairs {
            let (off, on) = match pair % 2 {
                0 => {
                    let off = once(false);
                    (off, once(true))
                }
                _ => {
                    let on = once(true);
                    (once(false), on)
                }
            };
            passes.push(ratio(on.0, off.0));
            wall.push(ratio(on.1, off.1));
        }
        println!("{name}: passes {}, wall {}", summary(&mut passes), summary(&mut wall));
    }
}

fn ratio(on: Duration, off: Duration) -> f64 {
    on.as_secs_f64() / off.as_secs_f64()
}

/// Median and quartiles.
fn summary(ratios: &mut [f64]) -> String {
    ratios.sort_by(f64::total_cmp);
    let at = |share: f64| ratios[((ratios.len() - 1) as f64 * share).round() as usize];
    format!("x{:.3} ({:.3} to {:.3})", at(0.5), at(0.25), at(0.75))
}
