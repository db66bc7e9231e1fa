//! Tokens per second against the length of the prompt.

use super::bench_curves::{applicable, draw as draw_curves, facts, table as table_of};
use super::{Caption, Figure};
use crate::bench::Vary;
use crate::sections;

pub(crate) const FIGURE: Figure = Figure {
    id: "bench-prompt",
    title: "Throughput against prompt length",
    section: sections::BENCH,
    applicable: |data| applicable(data, Vary::Prompt, "prompt length"),
    caption: |data| {
        let caption = Caption::new(
            "Tokens per second by how long the prompt is. Longer prompts give every expert more tokens to share its \
             weights, until attention, which grows with the square of the length, costs more. Marks are medians, \
             vertical bars their 95\u{a0}% intervals over samples.",
        );
        facts(caption, data, Vary::Prompt, "prompt length")
    },
    draw: |canvas, data| {
        draw_curves(canvas, data, Vary::Prompt, ("prompt tokens", "tokens/s"), |rate| {
            Some((rate.median, rate.interval))
        })
    },
    table: |data| table_of(data, Vary::Prompt, "Prompt tokens"),
};
