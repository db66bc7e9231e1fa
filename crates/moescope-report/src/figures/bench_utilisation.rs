//! How much of what the device can do a bench used.

use super::bench_curves::{draw as draw_curves, left_out, series};
use super::{Caption, Figure};
use crate::bench::{Phase, Rate, Vary, test};
use crate::canvas::Canvas;
use crate::data::Data;
use crate::format::{NOTHING, percent};
use crate::sections;
use crate::table::Table;

pub(crate) const FIGURE: Figure = Figure {
    id: "bench-utilisation",
    title: "Use of the device's bandwidth",
    section: sections::BENCH,
    applicable: |data| {
        let known =
            series(data, Vary::Batch).iter().any(|s| s.points.iter().any(|p| p.1.mbu.is_some()));
        match known {
            true => Ok(()),
            false => {
                Err("its peaks or the bytes of a pass were not measured for two batches".into())
            }
        }
    },
    caption,
    draw,
    table,
};

/// Percent of the peak.
fn of_peak(rate: &Rate) -> Option<(f64, Option<(f64, f64)>)> {
    let mbu = rate.mbu? * 100.0;
    let range =
        rate.interval.map(|(low, high)| (mbu * low / rate.median, mbu * high / rate.median));
    Some((mbu, range))
}

fn draw(canvas: &Canvas<'_>, data: &Data<'_>) -> f64 {
    let axes = ("sequences at once", "% of the measured read bandwidth");
    draw_curves(canvas, data, Vary::Batch, axes, of_peak)
}

fn caption(data: &Data<'_>) -> Caption {
    let mut caption = Caption::new(
        "Bytes that a pass has to read (attention, shared and routed experts that its tokens selected, cache) \
         per second, over the read bandwidth measured on this device (MBU). At 100\u{a0}% memory is the only \
         limit; far below it something else is. The table has the same of operations (MFU).",
    );
    let all = series(data, Vary::Batch);
    for series in &all {
        let best = series.points.iter().filter_map(|(x, rate)| Some((*x, rate.mbu?)));
        if let Some((x, mbu)) = best.max_by(|a, b| a.1.total_cmp(&b.1)) {
            let fact = format!("{}: at most {}, at batch {x}.", series.name, percent(mbu));
            caption.said_of(&series.name, fact);
        }
    }
    left_out(caption, &all)
}

fn table(data: &Data<'_>) -> Table {
    let mut table = Table::new()
        .text("Bench")
        .text("Configuration")
        .number("Bandwidth used (MBU)")
        .number("Operations used (MFU)");
    for bench in &data.benches {
        for row in &bench.rows {
            for phase in [Phase::Prompt, Phase::Generation] {
                let Some(rate) = row.rate(phase) else { continue };
                let share = |share: Option<f64>| share.map_or(NOTHING.into(), percent);
                table.row(vec![
                    bench.tagged(),
                    test(row.configuration(), phase, Vary::Nothing)
                        + &data.workload(row.configuration()),
                    share(rate.mbu),
                    share(rate.mfu),
                ]);
            }
        }
    }
    table.trimmed()
}
