//! `inspect --format csv`: a line per number, all that the text has.

use moescope_model::footprint::{kv_bytes, kv_bytes_per_token, stored, weights};

use super::facts::{Facts, Fitting, TYPES};
use crate::ui;

/// What a number is of; empty where it does not matter.
#[derive(Clone, Copy, Default)]
struct Of<'a> {
    part: &'a str,
    dtype: &'a str,
    context: Option<usize>,
}

pub(super) fn csv(facts: &Facts) -> String {
    let spec = &facts.spec;
    let labels = facts.labels.join("; ");
    let mut rows = Vec::new();
    let mut row = |quantity: &str, of: Of<'_>, value: String| {
        let context = of.context.map_or(String::new(), |context| context.to_string());
        let of = [quantity, of.part, of.dtype].map(str::to_owned);
        rows.push([&of[..], &[context, value, labels.clone()]].concat());
    };
    let all = ("all", spec.total_parameters(), spec.active_parameters());
    let parts = spec.by_part();
    let parts = parts.iter().map(|(part, total, active)| (part.as_str(), *total, *active));
    for (part, total, active) in parts.chain([all]) {
        row("parameters", Of { part, ..Of::default() }, total.to_string());
        row("active_parameters", Of { part, ..Of::default() }, active.to_string());
    }
    let on_disk = facts.stored.map(|format| ("stored", stored(spec, format)));
    let held = TYPES.map(|dtype| (dtype.as_str(), weights(spec, dtype)));
    for (dtype, parts) in on_disk.into_iter().chain(held) {
        let sum: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
        let parts = parts.iter().map(|(part, bytes)| (part.as_str(), *bytes));
        for (part, bytes) in parts.chain([("all", sum)]) {
            row("bytes", Of { part, dtype, context: None }, bytes.to_string());
        }
    }
    let mut contexts = vec![facts.context, spec.context];
    contexts.dedup();
    for context in contexts {
        let of = Of { dtype: "f32", context: Some(context), ..Of::default() };
        row("kv_cache_bytes", of, kv_bytes(spec, 1, context).to_string());
    }
    for context in [0, spec.context] {
        let of = Of { dtype: "f32", context: Some(context), ..Of::default() };
        row("kv_cache_bytes_of_a_token", of, kv_bytes_per_token(spec, context).to_string());
    }
    for dtype in TYPES {
        for context in facts.contexts() {
            let of = Of { dtype: dtype.as_str(), context: Some(context), ..Of::default() };
            let bytes = facts.read(dtype, context);
            row("bytes_read_per_decoded_token", of, bytes.round().to_string());
            row("tokens_per_second_simulated", of, (facts.bandwidth / bytes).to_string());
        }
    }
    for dtype in facts.capacity.dtypes.iter() {
        let Fitting { needed, fit, .. } = facts.fitting(dtype);
        let of = Of { dtype: dtype.as_str(), context: Some(facts.context), ..Of::default() };
        row("bytes_needed", of, needed.total().to_string());
        if let Some(fit) = fit {
            row("layers_that_fit", of, fit.layers.to_string());
            let of = Of { context: None, ..of };
            row("longest_context_that_fits", of, fit.context.to_string());
        }
    }
    ui::csv(&["quantity", "part", "dtype", "context", "value", "labels"], &rows)
}
