//! The tables of bench results: what was measured, and every row with the spread of its samples.

use std::collections::BTreeSet;

use crate::bench::{Bench, Phase, Row, Vary, test};
use crate::conditions;
use crate::data::Data;
use crate::format::{NOTHING, count, duration, fixed, interval, number, percent};
use crate::sanitize::short;
use crate::table::Table;

/// Both tables with what they show.
pub(crate) fn tables(data: &Data<'_>) -> Vec<(&'static str, Table)> {
    vec![("Bench results and their conditions", measured(data)), ("Throughput", rows(data))]
}

/// What was measured: a line per result, the fingerprint in short. The whole of it is in the conditions.
fn measured(data: &Data<'_>) -> Table {
    let facts: Vec<_> =
        data.benches.iter().map(|bench| conditions::of_bench(bench.result)).collect();
    let names = ["Weights", "Experts", "Compute type", "Device", "Driver", "moescope", "Measured"];
    let shown: Vec<&str> = names
        .into_iter()
        .filter(|name| facts.iter().flatten().any(|(known, _)| known == name))
        .collect();
    let mut table = Table::new().text("Bench");
    for name in &shown {
        table = table.text(name);
    }
    for (bench, facts) in data.benches.iter().zip(&facts) {
        let value = |name: &str| {
            let found = facts.iter().find(|(known, _)| known == name);
            found.map_or(NOTHING.into(), |(_, value)| short(value, 60))
        };
        let mut cells = vec![bench.tagged()];
        cells.extend(shown.iter().map(|name| value(name)));
        table.row(cells);
    }
    table
}

fn rows(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Bench")
        .text("Test")
        .number("Samples")
        .number("Tokens/s, median")
        .number("95\u{a0}% interval")
        .number("Slowest – fastest sample")
        .number("Quartiles apart")
        .number("Per token and sequence")
        .number("MBU")
        .number("MFU");
    for bench in &data.benches {
        for row in &bench.rows {
            for phase in [Phase::Prompt, Phase::Generation] {
                table_row(&mut table, data, (bench, row), phase);
            }
        }
    }
    let workloads: BTreeSet<&str> = data
        .benches
        .iter()
        .flat_map(|bench| &bench.rows)
        .map(|row| row.configuration().workload.as_str())
        .collect();
    let workload = match workloads.first().filter(|_| workloads.len() == 1) {
        Some(only) => format!(" The workload is {} throughout.", short(only, 24)),
        None => String::new(),
    };
    table.note(
        "Prompt processing (pp) and token generation (tg) of one configuration are lines of their own; tokens \
         of all sequences count. The interval is a bootstrap over samples and needs five; the raw samples are \
         in the bench file. MBU and MFU are the shares of the measured peaks of reading and of computing."
            .to_owned()
            + &workload,
    );
    table.trimmed()
}

fn table_row(
    table: &mut Table,
    data: &Data<'_>,
    (bench, row): (&Bench<'_>, &Row<'_>),
    phase: Phase,
) {
    let configuration = row.configuration();
    let wanted = match phase {
        Phase::Prompt => configuration.prompt,
        Phase::Generation => configuration.generate,
    };
    if wanted == 0 {
        return;
    }
    let test = test(configuration, phase, Vary::Nothing) + &data.workload(configuration);
    let name = vec![bench.tagged(), test];
    let cells = match row.rate(phase) {
        Some(rate) => {
            let share = |share: Option<f64>| share.map_or(NOTHING.into(), percent);
            let sequence_ns = 1e9 * f64::from(configuration.batch) / rate.median;
            vec![
                count(rate.samples as u64),
                number(rate.median),
                interval(rate.interval),
                format!("{} – {}", number(rate.range.0), number(rate.range.1)),
                rate.spread.map_or(NOTHING.into(), |spread| {
                    format!("{}\u{a0}%", fixed(spread * 100.0, 1))
                }),
                duration(sequence_ns),
                share(rate.mbu),
                share(rate.mfu),
            ]
        }
        None => {
            let why = row.row.error.as_deref().unwrap_or("no samples");
            let mut cells = vec!["0".into(), short(why, 80)];
            cells.resize(8, NOTHING.into());
            cells
        }
    };
    table.row(name.into_iter().chain(cells).collect());
}
