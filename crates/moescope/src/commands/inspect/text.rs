//! `inspect` for people: at most 100 columns.

use moescope_model::{
    DType, MoeLayerSpec,
    catalog::Entry,
    footprint::{kv_bytes, kv_bytes_per_token, stored, weights},
};
use moescope_report::sanitize;

use super::facts::{Facts, Fitting, TYPES};
use crate::ui;

const WIDTH: usize = 98;

pub(super) fn text(facts: &Facts) -> String {
    let sections = [
        head(facts),
        parts(facts),
        cache(facts),
        reading(facts),
        fit(facts),
        facts.entry.as_ref().map_or(String::new(), background),
    ];
    let shown: Vec<&String> = sections.iter().filter(|section| !section.is_empty()).collect();
    shown.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn head(facts: &Facts) -> String {
    let spec = &facts.spec;
    let title = facts.entry.as_ref().map_or(String::new(), |entry| format!(": {}", entry.title));
    let mut out = wrapped(&format!("{}{title}{}", facts.source, ui::bracketed(&facts.labels)), 0);
    out.push_str(&wrapped(&format!("{} ({})", spec.architecture, spec.family), 0));
    out.push_str(&format!(
        "{} layers, hidden {}, vocabulary {}, context {}\n",
        spec.layers,
        ui::count(spec.hidden as u64),
        ui::count(spec.vocab as u64),
        ui::count(spec.context as u64),
    ));
    out.push_str(&experts(&spec.moe));
    let [total, active] = [spec.total_parameters(), spec.active_parameters()].map(billions);
    let without = match facts.active_without_embedding() {
        true => " (without the input embedding)",
        false => "",
    };
    out.push_str(&format!("parameters: {total} in all, {active} per token{without}\n"));
    if let Some(entry) = facts.entry.as_ref().filter(|_| facts.whole) {
        out.push_str(&published(facts, entry));
    }
    out
}

/// What the makers say, and what comes out when counted their way.
fn published(facts: &Facts, entry: &Entry) -> String {
    let published = &entry.published;
    let (spec, counts) = (&facts.spec, [published.total_counts, published.active_counts]);
    let counted = [counts[0].of(spec, false), counts[1].of(spec, true)].map(billions);
    let who = if entry.rumour { "rumoured" } else { "published" };
    wrapped(
        &format!(
            "{who}: {} in all ({}), {} per token ({}); counted so: {}, {}",
            published.total,
            counts[0].as_str(),
            published.active,
            counts[1].as_str(),
            counted[0],
            counted[1],
        ),
        2,
    )
}

fn experts(moe: &[MoeLayerSpec]) -> String {
    let Some(first) = moe.first() else { return "dense: no routed experts\n".into() };
    let alike = moe.iter().all(|m| (m.experts, m.top_k) == (first.experts, first.top_k));
    let more = if alike { "" } else { " (in the first of them)" };
    format!(
        "{} MoE layers, {} experts, top-{}, {} shared{more}\n",
        moe.len(),
        first.experts,
        first.top_k,
        first.shared_experts,
    )
}

/// `25.2B`, `6.2M`.
fn billions(parameters: u64) -> String {
    match parameters as f64 {
        n if n >= 1e12 => format!("{:.2}T", n / 1e12),
        n if n >= 1e11 => format!("{:.1}B", n / 1e9),
        n if n >= 1e9 => format!("{:.2}B", n / 1e9),
        n if n >= 1e6 => format!("{:.1}M", n / 1e6),
        n => format!("{n}"),
    }
}

/// Parameters and bytes by part.
fn parts(facts: &Facts) -> String {
    let spec = &facts.spec;
    let bytes: Vec<Vec<u64>> = facts
        .stored
        .iter()
        .map(|format| stored(spec, *format))
        .chain(TYPES.map(|dtype| weights(spec, dtype)))
        .map(|parts| parts.into_iter().map(|(_, bytes)| bytes).collect())
        .collect();
    let all = spec.active_parameters() as f64;
    let row = |name: &str, total: u64, active: u64, bytes: &mut dyn Iterator<Item = u64>| {
        let mut row = vec![
            name.to_owned(),
            ui::count(total),
            ui::count(active),
            format!("{:.1} %", 100.0 * active as f64 / all),
        ];
        row.extend(bytes.map(ui::bytes));
        row
    };
    // All lists are by part, in the same order.
    let mut rows: Vec<_> = spec
        .by_part()
        .iter()
        .enumerate()
        .map(|(i, (part, total, active))| {
            row(part.as_str(), *total, *active, &mut bytes.iter().map(|column| column[i]))
        })
        .collect();
    let sums = &mut bytes.iter().map(|column| column.iter().sum());
    rows.push(row("all", spec.total_parameters(), spec.active_parameters(), sums));
    let mut header = vec!["part", "parameters", "active", "of active"];
    if facts.stored.is_some() {
        header.push("stored");
    }
    header.extend(["f32", "bf16, f16"]);
    let mut out = ui::table(&header, &rows);
    if spec.is_tied() {
        out.push_str("head: the embedding\n");
    }
    if let Some(format) = facts.stored {
        out.push_str(&wrapped(
            &format!("stored: {format}. Held here in f32, bf16 or f16, norms and routers in f32."),
            0,
        ));
    }
    out
}

fn cache(facts: &Facts) -> String {
    let spec = &facts.spec;
    let (at_first, later) = (kv_bytes_per_token(spec, 0), kv_bytes_per_token(spec, usize::MAX));
    let windows: Vec<usize> = spec.kv.iter().filter_map(|kv| kv.window).collect();
    let later = match windows.iter().max() {
        Some(window) if *window < spec.context => {
            format!(", {} beyond {} tokens", ui::bytes(later), ui::count(*window as u64))
        }
        _ => String::new(),
    };
    let for_context = |context: usize| {
        format!(
            "{} for {} tokens",
            ui::bytes(kv_bytes(spec, 1, context)),
            ui::count(context as u64)
        )
    };
    let mut contexts = vec![facts.context, spec.context];
    contexts.dedup();
    let contexts: Vec<String> = contexts.into_iter().map(for_context).collect();
    wrapped(
        &format!(
            "key/value cache (f32): {} per token{later}; {}",
            ui::bytes(at_first),
            contexts.join(", ")
        ),
        2,
    )
}

/// What a decode step reads, and what that allows.
fn reading(facts: &Facts) -> String {
    let contexts = facts.contexts();
    let row = |name: String, cell: &dyn Fn(usize) -> String| {
        std::iter::once(name)
            .chain(contexts.iter().map(|context| cell(*context)))
            .collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> = TYPES
        .iter()
        .map(|dtype| {
            row(named(*dtype).to_owned(), &|context| ui::bytes(facts.read(*dtype, context) as u64))
        })
        .collect();
    rows.extend(TYPES.iter().map(|dtype| {
        row(format!("{}, tokens/s", named(*dtype)), &|context| {
            format!("{:.1}", facts.bandwidth / facts.read(*dtype, context))
        })
    }));
    let header: Vec<String> = std::iter::once("read per decoded token".to_owned())
        .chain(contexts.iter().map(|n| format!("context {}", ui::count(*n as u64))))
        .collect();
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let rate = facts.bandwidth / 1e9;
    ui::table(&header, &rows)
        + &wrapped(
            &format!(
                "tokens/s is simulated, an upper bound: {rate} GB/s of memory bandwidth (--bandwidth) over the \
                 bytes one sequence reads."
            ),
            0,
        )
}

fn named(dtype: DType) -> &'static str {
    if dtype == DType::Bf16 { "bf16, f16" } else { dtype.as_str() }
}

fn fit(facts: &Facts) -> String {
    let demand = facts.demand();
    let what = format!(
        "one sequence of {} tokens, prompts of {}",
        ui::count(demand.context as u64),
        ui::count(demand.prompt as u64)
    );
    let limit = facts.capacity.tensor.map_or(String::new(), |bytes| {
        format!("; weights larger than {} are cut, nothing else may be larger", ui::bytes(bytes))
    });
    let fits: Vec<(String, Fitting)> =
        held_in(facts).into_iter().map(|(dtype, name)| (name, facts.fitting(dtype))).collect();
    let mut out = match facts.capacity.memory {
        None => {
            let needs = |(name, fitting): &(String, Fitting)| {
                format!("{} in {name}", ui::bytes(fitting.needed.total()))
            };
            let needs = fits.iter().map(needs).collect::<Vec<_>>().join(", ");
            wrapped(
                &format!(
                    "on {}: its memory is not known (--memory-limit says what to fit); needed for {what}: \
                     {needs}{limit}",
                    facts.device
                ),
                2,
            )
        }
        Some(memory) => {
            let row = |(name, fitting): &(String, Fitting)| {
                let (layers, context) = fitting.fit.map_or((0, 0), |fit| (fit.layers, fit.context));
                vec![
                    name.clone(),
                    ui::bytes(fitting.needed.total()),
                    format!("{layers} of {}", facts.spec.layers),
                    if context == 0 { "-".into() } else { ui::count(context as u64) },
                ]
            };
            let rows: Vec<Vec<String>> = fits.iter().map(row).collect();
            let header =
                ["weights in", "needs", "layers that fit", "longest context with all layers"];
            wrapped(&format!("on {}, {memory}; for {what}{limit}", facts.device), 2)
                + &ui::table(&header, &rows)
        }
    };
    for (name, fitting) in &fits {
        if let Some(tensor) = &fitting.too_large {
            let (what, needed) = (&tensor.what, ui::bytes(tensor.bytes));
            out.push_str(&wrapped(&format!("too large in {name}: {what}, {needed}"), 2));
        }
    }
    out
}

/// The types of different size that the device holds weights in, with the names of all of that size.
fn held_in(facts: &Facts) -> Vec<(DType, String)> {
    let of_size = |bytes: u64| {
        // As `named` orders them.
        let mut dtypes: Vec<DType> =
            facts.capacity.dtypes.iter().filter(|dtype| dtype.bytes() == bytes).collect();
        dtypes.reverse();
        let names: Vec<&str> = dtypes.iter().map(|dtype| dtype.as_str()).collect();
        Some((*dtypes.first()?, names.join(", ")))
    };
    [DType::F32, DType::F16].into_iter().filter_map(|dtype| of_size(dtype.bytes())).collect()
}

/// Notes, what was assumed, and where the figures come from.
fn background(entry: &Entry) -> String {
    let mut out = String::new();
    let hub = entry.hub.as_deref().unwrap_or("nobody has published it");
    out.push_str(&wrapped(&format!("weights: {hub}"), 2));
    for note in &entry.notes {
        out.push_str(&wrapped(&format!("note: {note}"), 2));
    }
    if !entry.from_memory.is_empty() {
        let keys = entry.from_memory.join(", ");
        out.push_str(&wrapped(&format!("without a source but common knowledge: {keys}"), 2));
    }
    for source in &entry.sources {
        out.push_str(&wrapped(&format!("source of {}: {}", source.figures, source.read), 2));
        out.push_str(&format!("  {}\n", sanitize(&source.url)));
    }
    out
}

/// Text in lines of at most [`WIDTH`] columns, those after the first indented.
fn wrapped(text: &str, indent: usize) -> String {
    let text = sanitize(text);
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_wrapped_between_words() {
        let text = "word ".repeat(60);
        let lines = wrapped(text.trim_end(), 2);
        assert!(lines.lines().all(|line| line.len() <= WIDTH), "{lines}");
        assert!(lines.lines().skip(1).all(|line| line.starts_with("  word")), "{lines}");
        assert_eq!(lines.matches("word").count(), 60);
    }

    #[test]
    fn parameters_are_short() {
        assert_eq!(billions(671_026_419_200), "671.0B");
        assert_eq!(billions(3_353_032_704), "3.35B");
        assert_eq!(billions(6_180_422), "6.2M");
    }
}
