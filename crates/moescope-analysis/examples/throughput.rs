//! All metrics over a synthetic trace: time of each, time of all, and the most memory held.
//!
//! ```text
//! cargo run --release -p moescope-analysis --example throughput -- DECISIONS [EXPERTS LAYERS TOP_K] [RUN]
//! ```
//!
//! A decision is a token's choice of one expert at one layer: T L k of them. With RUN the trace is also
//! written there as a run directory and read again.

use std::path::Path;
use std::time::Instant;

use moescope_analysis::synthetic::Synthetic;
use moescope_analysis::{METRICS, Options, RunData, analyze_data, analyze_metrics};
use moescope_trace::Run;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| args.get(at).map_or(Ok(default), |arg| arg.parse());
    let decisions = number(0, 10_000_000)?;
    let (experts, layers, top_k) = (number(1, 128)?, number(2, 48)?, number(3, 8)?);
    let mut made = Synthetic {
        experts,
        top_k,
        layers: layers as u16,
        prompt: 384,
        generated: 128,
        output_norms: true,
        ..Synthetic::default()
    };
    made.sequences = decisions.div_ceil(layers * top_k * 512 * made.domains).max(8);

    let start = Instant::now();
    let data = made.generate()?;
    let decisions = made.decisions();
    println!("{decisions} decisions: {} tokens, {layers} layers, {top_k} of {experts}", data.len());
    println!("{:8.2} s  generated", start.elapsed().as_secs_f64());
    let options = Options::default();
    let start = Instant::now();
    let analysis = analyze_data(&data, &options);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{seconds:8.2} s  all metrics, {} rows, {:.1} million decisions/s",
        analysis.rows.len(),
        decisions as f64 / seconds / 1e6
    );
    println!("{:8.2} GiB held at most", peak_gib());
    drop(analysis);
    if std::env::var_os("EACH").is_some() {
        for metric in METRICS {
            let start = Instant::now();
            let rows = analyze_metrics(&data, &options, [metric]).rows.len();
            println!("{:8.2} s  {} ({rows} rows)", start.elapsed().as_secs_f64(), metric.name);
        }
    }
    if let Some(dir) = args.get(4) {
        drop(data);
        let start = Instant::now();
        made.write(Path::new(dir))?;
        println!("{:8.2} s  generated and written", start.elapsed().as_secs_f64());
        let start = Instant::now();
        let data = RunData::load(&Run::open(dir)?)?;
        println!("{:8.2} s  read: {} tokens", start.elapsed().as_secs_f64(), data.len());
        println!("{:8.2} GiB held at most", peak_gib());
    }
    Ok(())
}

/// The most memory the process held, as Linux reports it; 0 elsewhere.
fn peak_gib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / (1024.0 * 1024.0)
}
