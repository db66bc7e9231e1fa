//! Tokens per second against the tokens that are in the cache already.

use super::bench_curves::{applicable, draw as draw_curves, facts, table as table_of};
use super::{Caption, Figure};
use crate::bench::Vary;
use crate::sections;

pub(crate) const FIGURE: Figure = Figure {
    id: "bench-depth",
    title: "Throughput against depth",
    section: sections::BENCH,
    applicable: |data| applicable(data, Vary::Depth, "depth"),
    caption: |data| {
        let caption = Caption::new(
            "Tokens per second with more and more tokens in the cache before the measurement begins: a fall from left \
             to right is what attention over a long context costs. Marks are medians, vertical bars their \
             95\u{a0}% intervals over samples.",
        );
        facts(caption, data, Vary::Depth, "depth")
    },
    draw: |canvas, data| {
        draw_curves(
            canvas,
            data,
            Vary::Depth,
            ("tokens in the cache before the measurement", "tokens/s"),
            |rate| Some((rate.median, rate.interval)),
        )
    },
    table: |data| table_of(data, Vary::Depth, "Depth"),
};
