//! Tokens per second against the batch.

use super::bench_curves::{applicable, draw as draw_curves, facts, table as table_of};
use super::{Caption, Figure};
use crate::bench::Vary;
use crate::sections;

pub(crate) const FIGURE: Figure = Figure {
    id: "bench-batch",
    title: "Throughput against batch",
    section: sections::BENCH,
    applicable: |data| applicable(data, Vary::Batch, "the batch"),
    caption: |data| {
        let caption = Caption::new(
            "Tokens per second of all sequences together, by how many run at once. A pass over a larger batch reads \
             weights once for more tokens, but also more different experts: where the curve bends, the batch no \
             longer comes for free. Marks are medians, vertical bars their 95\u{a0}% intervals over samples.",
        );
        facts(caption, data, Vary::Batch, "batch")
    },
    draw: |canvas, data| {
        draw_curves(canvas, data, Vary::Batch, ("sequences at once", "tokens/s"), |rate| {
            Some((rate.median, rate.interval))
        })
    },
    table: |data| table_of(data, Vary::Batch, "Batch"),
};
