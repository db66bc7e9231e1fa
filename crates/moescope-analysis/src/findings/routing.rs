//! Findings about which experts are used.

use std::collections::HashMap;

use moescope_trace::manifest::Weights;

use super::words::{counted, interval, interval_sentence, list, number, percent, thousands, times};
use super::{
    Basis, Finding, NOTABLE, apart, effect, elsewhere, place, position, share_error, stands_out,
    strongest,
};
use crate::analysis::Analysis;
use crate::row::{Index, MetricRow};

pub(super) fn findings(analyses: &[Analysis]) -> Vec<Finding> {
    [specialised, hottest, dead, least_balanced, confidence, predictable]
        .iter()
        .filter_map(|finding| finding(analyses))
        .filter(|finding| finding.effect >= NOTABLE)
        .collect()
}

/// Runs whose routing means something.
fn trained(analyses: &[Analysis]) -> impl Iterator<Item = &Analysis> {
    analyses.iter().filter(|analysis| analysis.manifest.model.weights == Weights::Trained)
}

/// The coordinates of a row by layer and expert.
fn layer_expert(row: &MetricRow) -> Option<(u16, u16)> {
    match row.index? {
        Index::Expert(expert) => Some((row.layer?, expert)),
        _ => None,
    }
}

/// The pair of domain and expert that is furthest above both chance and the other domains.
fn specialised(analyses: &[Analysis]) -> Option<Finding> {
    let best = trained(analyses).filter_map(|analysis| {
        let (size, pair) = most_specialised(analysis)?;
        Some((size, (analysis, pair)))
    });
    let (size, (analysis, pair)) = strongest(best)?;
    let Specialised { row, domain, layer, expert, chance, others, among } = pair;
    let others_in = elsewhere(analyses, analysis, |other| {
        let index = Some(Index::Expert(expert));
        let row = other.row("domain_specialisation", Some(layer), index, Some(domain), None)?;
        Some(percent(row.value))
    });
    Some(Finding {
        headline: format!(
            "Expert {expert} of layer {layer} takes {} of \"{domain}\" tokens{}; {} would be even",
            percent(row.value),
            place(analyses, analysis),
            percent(chance)
        ),
        detail: format!(
            "Of the tokens of the other domains it takes {}.{} No other of {} of domain and expert is \
             further above both.{others_in}",
            percent(others),
            interval_sentence(row.interval, percent),
            counted(among, "pair")
        ),
        figure: Some("specialisation"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

struct Specialised<'a> {
    row: &'a MetricRow,
    domain: &'a str,
    layer: u16,
    expert: u16,
    chance: f64,
    /// Share of the tokens of the other domains.
    others: f64,
    /// Pairs looked at.
    among: usize,
}

fn most_specialised(analysis: &Analysis) -> Option<(f64, Specialised<'_>)> {
    if analysis.domains.len() < 2 {
        return None;
    }
    let mut tokens: HashMap<(u16, &str), f64> = HashMap::new();
    let mut tokens_of_layer: HashMap<u16, f64> = HashMap::new();
    for row in analysis.rows_of("tokens") {
        if let (Some(layer), Some(domain)) = (row.layer, row.domain.as_deref()) {
            tokens.insert((layer, domain), row.value);
            *tokens_of_layer.entry(layer).or_default() += row.value;
        }
    }
    let pairs: Vec<_> = analysis
        .rows_of("domain_specialisation")
        .filter_map(|row| {
            let (layer, expert) = layer_expert(row)?;
            let domain = row.domain.as_deref()?;
            Some((row, layer, expert, domain, *tokens.get(&(layer, domain))?))
        })
        .collect();
    let mut selected: HashMap<(u16, u16), f64> = HashMap::new();
    for (row, layer, expert, _, tokens) in &pairs {
        *selected.entry((*layer, *expert)).or_default() += row.value * tokens;
    }
    let among = pairs.len();
    let candidates = pairs.into_iter().filter_map(|(row, layer, expert, domain, tokens)| {
        let chance = row.chance?;
        let rest = tokens_of_layer.get(&layer)? - tokens;
        let others = (selected.get(&(layer, expert))? - row.value * tokens) / rest;
        let level = chance.max(others);
        let at = analysis.domains.iter().position(|name| name == domain)?;
        let basis = Basis {
            sequences: analysis.domain_sequences[at],
            least_error: share_error(row.value.max(level), tokens),
            among,
        };
        (row.value > level && stands_out(row, level, basis)).then(|| {
            let others = others.max(0.0);
            let size = effect(row.value, level);
            (size, Specialised { row, domain, layer, expert, chance, others, among })
        })
    });
    strongest(candidates)
}

/// The expert with the largest share of its layer.
fn hottest(analyses: &[Analysis]) -> Option<Finding> {
    let best = trained(analyses).filter_map(|analysis| {
        let rows = whole_run(analysis, "utilisation");
        let among = rows.len();
        let hot = rows.into_iter().filter(|row| {
            let error = utilisation_error(analysis, row).unwrap_or(f64::INFINITY);
            let basis = Basis { sequences: analysis.sequences, least_error: error, among };
            row.value > 1.0 && stands_out(row, 1.0, basis)
        });
        let (size, row) = strongest(hot.map(|row| (effect(row.value, 1.0), row)))?;
        Some((size, (analysis, row, among)))
    });
    let (size, (analysis, row, among)) = strongest(best)?;
    let (layer, expert) = layer_expert(row)?;
    let experts = experts_of(analysis, layer)? as f64;
    let others = elsewhere(analyses, analysis, |other| {
        let row = other.row("utilisation", Some(layer), row.index, None, None)?;
        Some(times(row.value))
    });
    Some(Finding {
        headline: format!(
            "Expert {expert} of layer {layer} is used {} as much as an even share{}",
            times(row.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "It serves {}{} of the layer's selections; {} would be even. It is the most used of {}.\
             {others}",
            percent(row.value / experts),
            interval(row.interval.map(|(low, high)| (low / experts, high / experts)), percent),
            percent(1.0 / experts),
            counted(among, "expert")
        ),
        figure: Some("utilisation"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// Rows by expert that are not about one domain or phase.
fn whole_run<'a>(analysis: &'a Analysis, metric: &'a str) -> Vec<&'a MetricRow> {
    analysis
        .rows_of(metric)
        .filter(|row| row.domain.is_none() && row.phase.is_none() && layer_expert(row).is_some())
        .collect()
}

/// Standard error of a row of `utilisation` if tokens were independent.
fn utilisation_error(analysis: &Analysis, row: &MetricRow) -> Option<f64> {
    let layer = row.layer?;
    let shape = analysis.manifest.moe.layers.iter().find(|shape| shape.layer == layer)?;
    let even = f64::from(shape.top_k) / f64::from(shape.experts);
    let tokens = analysis.value("tokens", Some(layer))?;
    Some(share_error((row.value * even).min(1.0), tokens) / even)
}

fn experts_of(analysis: &Analysis, layer: u16) -> Option<u16> {
    let shape = analysis.manifest.moe.layers.iter().find(|shape| shape.layer == layer)?;
    Some(shape.experts)
}

/// Experts nobody selected, if more than the number of tokens explains.
fn dead(analyses: &[Analysis]) -> Option<Finding> {
    let counted_dead = trained(analyses).filter_map(|analysis| {
        let rows: Vec<(u16, &MetricRow)> = analysis.by_layer("dead_experts").collect();
        let dead: f64 = rows.iter().map(|(_, row)| row.value).sum();
        let chance: f64 = rows.iter().filter_map(|(_, row)| row.chance).sum();
        // Three standard deviations of a rare count, and at least one.
        let found = dead >= 1.0 && dead > chance + 3.0 * chance.sqrt();
        // Half an expert more on both sides keeps a chance level near 0 from ruling the ratio.
        found.then(|| (effect(dead + 0.5, chance + 0.5), (analysis, rows, dead, chance)))
    });
    let (size, (analysis, rows, dead, chance)) = strongest(counted_dead)?;
    let tokens = rows.iter().filter_map(|(layer, _)| analysis.value("tokens", Some(*layer)));
    let tokens = tokens.fold(0.0, f64::max);
    let all: usize = analysis.manifest.moe.layers.iter().map(|l| usize::from(l.experts)).sum();
    let layers: Vec<String> = rows
        .iter()
        .filter(|(_, row)| row.value > 0.0)
        .map(|(layer, row)| format!("{} in layer {layer}", row.value))
        .collect();
    let others = elsewhere(analyses, analysis, |other| {
        Some(counted(
            other.by_layer("dead_experts").map(|(_, row)| row.value as usize).sum(),
            "dead expert",
        ))
    });
    Some(Finding {
        headline: format!(
            "{} of {} {} selected by none of {} tokens{}",
            thousands(dead as u64),
            counted(all, "expert"),
            if dead == 1.0 { "is" } else { "are" },
            thousands(tokens as u64),
            place(analyses, analysis)
        ),
        detail: format!(
            "{}. Uniform routing of as many tokens would leave out {}.{others}",
            list(&layers),
            if chance < 0.01 { "less than 0.01".to_owned() } else { number(chance) }
        ),
        figure: Some("utilisation"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}

/// The layer with the fewest effective experts for what chance would give.
fn least_balanced(analyses: &[Analysis]) -> Option<Finding> {
    let best = trained(analyses).filter_map(|analysis| {
        let rows: Vec<(u16, &MetricRow)> = analysis.by_layer("effective_experts").collect();
        let among = rows.len();
        let uneven = rows.into_iter().filter_map(|(layer, row)| {
            let chance = row.chance?;
            let basis = Basis { sequences: analysis.sequences, least_error: 0.0, among };
            let found = row.value < chance && stands_out(row, chance, basis);
            found.then(|| (effect(row.value, chance), (analysis, layer, row, chance)))
        });
        strongest(uneven)
    });
    let (size, (analysis, layer, row, chance)) = strongest(best)?;
    let experts = experts_of(analysis, layer)?;
    let also = |metric: &str, name: &str| {
        let row = analysis.row(metric, Some(layer), None, None, None)?;
        let chance = row
            .chance
            .map_or_else(String::new, |chance| format!(" ({} by chance)", number(chance)));
        Some(format!("{name} is {}{chance}", number(row.value)))
    };
    let also: Vec<String> = [
        also("gini", "its Gini coefficient"),
        also("imbalance", "its most used expert over the mean"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let others = elsewhere(analyses, analysis, |other| {
        Some(number(other.value("effective_experts", Some(layer))?))
    });
    let only = analysis.manifest.moe.layers.len() == 1;
    Some(Finding {
        headline: format!(
            "Layer {layer} is {}: its {experts} experts are used like {} even ones{}",
            if only { "uneven" } else { "the least balanced" },
            number(row.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "Uniform routing would give {};{} {}.{others}",
            number(chance),
            row.interval.map_or_else(String::new, |(low, high)| {
                format!(" the 95 % interval is {} to {},", number(low), number(high))
            }),
            list(&also)
        ),
        figure: Some("balance"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// Whether routers get surer or less sure with depth.
fn confidence(analyses: &[Analysis]) -> Option<Finding> {
    let trend = trained(analyses).filter_map(|analysis| {
        let rows: Vec<(u16, &MetricRow)> = analysis
            .by_layer("router_entropy")
            .filter(|(_, row)| row.chance.is_some_and(|chance| chance > 0.0))
            .collect();
        // Layers may have different numbers of experts: compare shares of ln E.
        let shares: Vec<f64> =
            rows.iter().map(|(_, row)| row.value / row.chance.unwrap_or(f64::NAN)).collect();
        let (first, last) = (*rows.first()?, *rows.last()?);
        let (from, to) = (*shares.first()?, *shares.last()?);
        let monotone = rank_correlation(&shares);
        let found = rows.len() > 1
            && apart(first.1, last.1)
            && monotone.abs() >= 0.6
            && (to > from) == (monotone > 0.0);
        found.then(|| (effect(to, from), (analysis, first, last, from, to)))
    });
    let (size, (analysis, first, last, from, to)) = strongest(trend)?;
    let text = |row: &MetricRow| {
        format!(
            "{} of {} nats{}",
            number(row.value),
            number(row.chance.unwrap_or_default()),
            interval(row.interval, number)
        )
    };
    let others = elsewhere(analyses, analysis, |other| {
        let at = |layer| other.value("router_entropy", Some(layer));
        Some(format!("{} to {} nats", number(at(first.0)?), number(at(last.0)?)))
    });
    Some(Finding {
        headline: format!(
            "The router gets {} with depth: its entropy {} from {} of the maximum at layer {} to {} \
             at layer {}{}",
            if to < from { "surer" } else { "less sure" },
            if to < from { "falls" } else { "rises" },
            percent(from),
            first.0,
            percent(to),
            last.0,
            place(analyses, analysis)
        ),
        detail: format!(
            "Layer {}: {}; layer {}: {}. The maximum is ln E, a router that does not distinguish \
             its experts.{others}",
            first.0,
            text(first.1),
            last.0,
            text(last.1)
        ),
        figure: Some("confidence"),
        run: position(analyses, analysis),
        layer: Some(last.0),
        effect: size,
        caveat: false,
    })
}

/// Spearman's rank correlation of values with their order; ties keep their order.
fn rank_correlation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let squares: f64 =
        order.iter().enumerate().map(|(rank, &at)| (rank as f64 - at as f64).powi(2)).sum();
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

/// The domains the model predicts best and worst.
fn predictable(analyses: &[Analysis]) -> Option<Finding> {
    let extremes = trained(analyses).filter_map(|analysis| {
        let rows: Vec<&MetricRow> = analysis.rows_of("mean_logprob").collect();
        // Prompt tokens only, where a run tells them apart.
        let phase = rows.iter().any(|row| row.phase == Some("prefill")).then_some("prefill");
        let domains = rows.into_iter().filter(|row| row.phase == phase && row.domain.is_some());
        let mut domains: Vec<&MetricRow> = domains.collect();
        domains.sort_by(|a, b| a.value.total_cmp(&b.value));
        let (worst, best) = (*domains.first()?, *domains.last()?);
        apart(worst, best).then_some((best.value - worst.value, (analysis, worst, best, phase)))
    });
    let (size, (analysis, worst, best, phase)) = strongest(extremes)?;
    let name = |row: &MetricRow| row.domain.clone().unwrap_or_default();
    let overall = analysis.row("mean_logprob", None, None, None, phase)?;
    Some(Finding {
        headline: format!(
            "\"{}\" is the easiest domain at {} nats per token, \"{}\" the hardest at {}{}",
            name(best),
            number(best.value),
            name(worst),
            number(worst.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "Mean log-probability of {}. \"{}\": {}{}; \"{}\": {}{}; all domains: {}.",
            if phase.is_some() { "prompt tokens" } else { "tokens" },
            name(best),
            number(best.value),
            interval(best.interval, number),
            name(worst),
            number(worst.value),
            interval(worst.interval, number),
            number(overall.value)
        ),
        figure: Some("predictability"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}
