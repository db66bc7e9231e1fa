//! The answer for a person to read.

use moescope_report::sanitize;
use moescope_trace::Phase;

use super::{Answer, Imbalance, Placed, PrefetchPoint};
use crate::ui;

/// Policies in the order of the table: metric of the layers' own caches, of a shared one, and words.
const POLICIES: [(&str, &str, &str); 5] = [
    ("hit_rate_static", "hit_rate_global_static", "static: hot experts of other prompts"),
    ("hit_rate_lfu", "hit_rate_global_lfu", "LFU"),
    ("hit_rate_lru", "hit_rate_global_lru", "LRU"),
    ("hit_rate_lru_warm", "hit_rate_global_lru_warm", "LRU, warmed by the prompt"),
    ("hit_rate_belady", "hit_rate_global_belady", "bound (knows the future)"),
];

/// Shares of the experts at which hit rates are shown.
const SHARES: [f64; 6] = [0.125, 0.25, 0.375, 0.5, 0.75, 0.875];

pub(super) fn text(answer: &Answer<'_>) -> String {
    let mut out = header(answer);
    out.push('\n');
    out.push_str(&curves(answer));
    if answer.speed.is_some() {
        out.push('\n');
        out.push_str(&speed(answer));
    }
    if !answer.prefetches.is_empty() {
        out.push('\n');
        out.push_str(&prefetch(answer));
    }
    if let Some(placed) = &answer.placement {
        out.push('\n');
        out.push_str(&placement(placed));
    }
    out
}

fn header(answer: &Answer<'_>) -> String {
    let data = answer.study.data;
    let of_phase = |wanted| data.tokens.phase.iter().filter(|&&phase| phase == wanted).count();
    let tokens = match answer.phase {
        None => format!("all {} tokens", ui::count(data.len() as u64)),
        Some(phase) => {
            let what = if phase == Phase::Decode { "generated" } else { "prompt" };
            format!("{} {what} tokens", ui::count(of_phase(phase) as u64))
        }
    };
    format!(
        "{}{}: {} experts in {} MoE layers; routing of {tokens} in {} sequences\n",
        sanitize(&data.name),
        ui::bracketed(&answer.labels()),
        ui::count(answer.experts() as u64),
        data.layers.len(),
        ui::count(data.sequences.len() as u64),
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Hit rates by the share of the experts that is cached, evenly over layers.
fn curves(answer: &Answer<'_>) -> String {
    let total = answer.experts() as f64;
    let shares: Vec<String> =
        SHARES.iter().map(|share| format!("{}", (share * total).round())).collect();
    let mut header = vec!["hit rate, experts cached:"];
    header.extend(shares.iter().map(String::as_str));
    let mut rows = Vec::new();
    for (own, _, words) in POLICIES {
        let Some(curve) = answer.curves.iter().find(|curve| curve.metric == own) else {
            continue;
        };
        let mut row = vec![words.to_owned()];
        row.extend(SHARES.iter().map(|share| {
            let found = curve.at((share * total).round() as usize);
            found.map_or_else(|| "-".to_owned(), |row| percent(row.value))
        }));
        rows.push(row);
    }
    let mut even = vec!["even use of experts".to_owned()];
    even.extend(SHARES.iter().map(|share| percent(*share)));
    rows.push(even);
    ui::table(&header, &rows)
}

fn speed(answer: &Answer<'_>) -> String {
    let Some((model, machine, speed)) = &answer.speed else {
        return String::new();
    };
    let rate = |bytes: f64| format!("{}/s", decimal(bytes));
    let mut out = format!(
        "predicted, not measured: one expert {}, dense part {}, whole model {}; a GPU with {} for \
         weights that reads {}; link {} after {:.0} us\n",
        ui::bytes(model.expert as u64),
        ui::bytes(model.dense as u64),
        ui::bytes(model.total() as u64),
        ui::bytes((machine.vram - machine.reserved).max(0.0) as u64),
        rate(machine.device_bandwidth),
        rate(machine.link_bandwidth),
        machine.link_latency * 1e6,
    );
    let Some(fitting) = speed.experts_that_fit() else {
        out.push_str("not even the dense part fits: --vram is too small for this model\n");
        return out;
    };
    out.push_str(&format!(
        "experts that fit beside the dense part: {} of {}\n\n",
        ui::count(fitting as u64),
        ui::count(model.experts as u64)
    ));
    if fitting == model.experts {
        out.push_str(&format!(
            "the whole model fits: no transfers, {} tokens/s\n",
            tokens(speed.tokens_per_second(1.0))
        ));
    } else {
        out.push_str(&policies(answer, fitting));
    }
    out.push_str(&format!(
        "break-even at a hit rate of {}: above it, reading the GPU's memory takes longer than the \
         link\n",
        percent(speed.break_even())
    ));
    if let Some(host) = speed.on_host() {
        out.push_str(&match speed.hit_rate_to_beat_host() {
            Some(hit_rate) => format!(
                "a cache beats running the experts on the host ({} tokens/s) from a hit rate of {}\n",
                tokens(host),
                percent(hit_rate)
            ),
            None => format!(
                "no cache beats running the experts on the host ({} tokens/s): the GPU's memory is slower\n",
                tokens(host)
            ),
        });
    }
    if let Some(target) = answer.target {
        out.push_str(&match speed.hit_rate_for(target) {
            Some(hit_rate) => {
                format!("{} tokens/s take a hit rate of {}\n", tokens(target), percent(hit_rate))
            }
            None => format!(
                "{} tokens/s are out of reach: without a single miss it would be {}\n",
                tokens(target),
                tokens(speed.tokens_per_second(1.0))
            ),
        });
    }
    out
}

/// The policies at the cache size that fits.
fn policies(answer: &Answer<'_>, fitting: usize) -> String {
    let Some((model, _, speed)) = &answer.speed else {
        return String::new();
    };
    let cell = |metric: &str| {
        let found = answer.curves.iter().find(|curve| curve.metric == metric)?.at(fitting)?;
        let interval = found.interval.map_or_else(String::new, |(low, high)| {
            format!(" ({:.1} to {:.1})", low * 100.0, high * 100.0)
        });
        let [value, low, high] = answer.predict(found)?;
        let range = match (low, high) {
            (Some(low), Some(high)) => format!(" ({} to {})", tokens(low), tokens(high)),
            _ => String::new(),
        };
        Some([percent(found.value) + &interval, tokens(value?) + &range])
    };
    let none = || ["-".to_owned(), "-".to_owned()];
    let mut rows: Vec<Vec<String>> = POLICIES
        .iter()
        .map(|(own, shared, words)| {
            let (own, shared) = (cell(own), cell(shared).unwrap_or_else(none));
            let mut row = vec![(*words).to_owned()];
            row.extend(own.unwrap_or_else(none));
            row.extend(shared);
            row
        })
        .collect();
    let share = fitting as f64 / model.experts as f64;
    let mut plain = |words: &str, hit_rate: String, rate: f64| {
        let empty = String::new;
        rows.push(vec![words.to_owned(), hit_rate, tokens(rate), empty(), empty()]);
    };
    plain("even use of experts", percent(share), speed.tokens_per_second(share));
    plain("no cache", percent(0.0), speed.tokens_per_second(0.0));
    if let Some(rate) = speed.on_host() {
        plain("experts run by the host", String::new(), rate);
    }
    plain("all in the GPU's memory", percent(1.0), speed.tokens_per_second(1.0));
    ui::table(&["cache policy", "per layer: hits", "tokens/s", "shared: hits", "tokens/s"], &rows)
        + "\n"
}

/// What a prefetch of k, 2k, 4k, ... experts brings.
fn prefetch(answer: &Answer<'_>) -> String {
    let top_k = answer.study.data.layers.iter().map(|layer| layer.top_k).max().unwrap_or(1).max(1);
    let sizes = std::iter::successors(Some(top_k as u32), |size| size.checked_mul(2));
    let shown: Vec<&PrefetchPoint> = sizes
        .map_while(|size| answer.prefetches.iter().find(|point| point.brought == size))
        .collect();
    let brought: Vec<String> = shown.iter().map(|point| point.brought.to_string()).collect();
    let mut header = vec!["next-layer prefetch, experts brought per layer:"];
    header.extend(brought.iter().map(String::as_str));
    let row = |words: &str, of: fn(&PrefetchPoint) -> Option<f64>| {
        let cells = shown.iter().map(|point| of(point).map_or_else(|| "-".to_owned(), percent));
        std::iter::once(words.to_owned()).chain(cells).collect::<Vec<String>>()
    };
    let rows = [
        row("needed experts that are there", |point| Some(point.hit_rate.value)),
        row("by chance", |point| point.hit_rate.chance),
        row("brought for nothing", |point| Some(point.wasted.value)),
    ];
    ui::table(&header, &rows)
}

fn placement(placed: &Placed) -> String {
    let cluster = &placed.cluster;
    let mean = |found: &[Imbalance]| {
        let mean = found.iter().find(|found| found.layer.is_none());
        mean.map_or_else(
            || "-".to_owned(),
            |mean| {
                let interval = mean.interval;
                let range = interval
                    .map_or_else(String::new, |(low, high)| format!(" ({low:.2} to {high:.2})"));
                format!("{:.2}{range}", mean.value)
            },
        )
    };
    let worst = |found: &[Imbalance]| {
        let layers = found.iter().filter_map(|found| Some((found.layer?, found.value)));
        let worst = layers.max_by(|a, b| a.1.total_cmp(&b.1));
        worst.map_or_else(|| "-".to_owned(), |(layer, value)| format!("{value:.2} (layer {layer})"))
    };
    let chance = |found: &[Imbalance]| {
        let mean = found.iter().find(|found| found.layer.is_none());
        let chance = mean.and_then(|mean| mean.chance);
        chance.map_or_else(|| "-".to_owned(), |chance| format!("{chance:.2}"))
    };
    let rows = [("experts in order", &placed.before), ("balanced (EPLB)", &placed.after)]
        .map(|(words, found)| vec![words.to_owned(), mean(found), worst(found), chance(found)]);
    let title = format!(
        "busiest of {} GPUs over the mean, {} redundant experts per layer; placed on one half of the \
         sequences, measured on the other\n",
        cluster.gpus, cluster.redundant
    );
    title + &ui::table(&["placement", "mean over layers", "worst layer", "by chance"], &rows)
}

/// Three digits of a speed.
fn tokens(rate: f64) -> String {
    match rate {
        rate if rate >= 100.0 => ui::count(rate.round() as u64),
        rate if rate >= 10.0 => format!("{rate:.1}"),
        rate => format!("{rate:.2}"),
    }
}

/// Bytes in decimal units, as bandwidths are given.
fn decimal(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e12 => format!("{:.1} TB", bytes / 1e12),
        bytes if bytes >= 1e9 => format!("{:.0} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.0} MB", bytes / 1e6),
        bytes => format!("{bytes:.0} B"),
    }
}
