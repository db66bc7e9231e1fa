//! Findings about what can be cached, foretold or spread: locality, structure, placement.

use super::words::{interval, interval_sentence, number, percent, times};
use super::{Basis, Finding, NOTABLE, effect, elsewhere, place, position, stands_out, strongest};
use crate::analysis::Analysis;
use crate::row::{Index, MetricRow};
use crate::structure::Coactivation;

use moescope_trace::manifest::Weights;

pub(super) fn findings(analyses: &[Analysis]) -> Vec<Finding> {
    [cache, reuse, together, path, vocabulary, placement]
        .iter()
        .filter_map(|finding| finding(analyses))
        .collect()
}

/// Runs whose routing means something.
fn trained(analyses: &[Analysis]) -> impl Iterator<Item = &Analysis> {
    analyses.iter().filter(|analysis| analysis.manifest.model.weights == Weights::Trained)
}

/// Whether a value, the most extreme of `among`, is above its chance level, and by a tenth at least.
fn above(analysis: &Analysis, row: &MetricRow, chance: f64, among: usize) -> bool {
    const NOTABLE: f64 = 1.1;
    let basis = Basis { sequences: analysis.sequences, least_error: 0.0, among };
    row.value > NOTABLE * chance && stands_out(row, chance, basis)
}

/// Number of MoE layers.
fn layers(analysis: &Analysis) -> usize {
    analysis.manifest.moe.layers.len()
}

/// Hits of LRU with a quarter of the experts.
fn cache(analyses: &[Analysis]) -> Option<Finding> {
    let quarter = |analysis: &Analysis| {
        let experts = analysis.manifest.moe.layers.iter().map(|layer| layer.experts).max()?;
        Some(u32::from(experts).div_ceil(4))
    };
    let hits = |analysis: &Analysis, metric: &str| -> Option<MetricRow> {
        let size = Some(Index::Size(quarter(analysis)?));
        let of = |phase| analysis.row(metric, None, size, None, phase).cloned();
        of(Some("decode")).or_else(|| of(None))
    };
    let found = trained(analyses).filter_map(|analysis| {
        let row = hits(analysis, "hit_rate_lru")?;
        let chance = row.chance.filter(|chance| *chance > 0.0)?;
        let size = effect(row.value, chance);
        above(analysis, &row, chance, 1).then_some((size, (analysis, row, chance)))
    });
    let (size, (analysis, row, chance)) = strongest(found)?;
    let bound = hits(analysis, "hit_rate_belady").map_or_else(String::new, |bound| {
        format!(" No policy could hit more than {}.", percent(bound.value))
    });
    let pinned = hits(analysis, "hit_rate_static").map_or_else(String::new, |pinned| {
        let chance =
            pinned.chance.map_or_else(String::new, |c| format!(" ({} by chance)", percent(c)));
        // From an empty cache LRU may have less.
        let beyond = match row.value > pinned.value {
            true => ": what LRU hits beyond that is locality",
            false => "",
        };
        format!(
            " The experts most used in other texts, pinned, hit {}{chance}{beyond}.",
            percent(pinned.value)
        )
    });
    let others =
        elsewhere(analyses, analysis, |other| Some(percent(hits(other, "hit_rate_lru")?.value)));
    Some(Finding {
        headline: format!(
            "A cache of a quarter of the experts (LRU) would serve {} of the lookups{}; {} by chance",
            percent(row.value),
            place(analyses, analysis),
            percent(chance)
        ),
        detail: format!(
            "Simulated with {} experts per layer on {}.{}{bound}{pinned}{others}",
            quarter(analysis)?,
            if row.phase.is_some() { "generated tokens" } else { "all tokens" },
            interval_sentence(row.interval, percent)
        ),
        figure: Some("hit-rate"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}

/// The layer whose experts the next token uses again most, compared with chance.
fn reuse(analyses: &[Analysis]) -> Option<Finding> {
    let next = Some(Index::Lag(1));
    let found = trained(analyses).filter_map(|analysis| {
        let rows = analysis.rows_of("reuse").filter(|row| {
            row.index == next && row.domain.is_none() && row.phase.is_none() && row.layer.is_some()
        });
        let apart = rows.filter_map(|row| {
            let chance = row.chance.filter(|chance| *chance > 0.0)?;
            above(analysis, row, chance, layers(analysis))
                .then(|| (effect(row.value, chance), (row, chance)))
        });
        let (size, (row, chance)) = strongest(apart)?;
        Some((size, (analysis, row, chance)))
    });
    let (size, (analysis, row, chance)) = strongest(found)?;
    let layer = row.layer?;
    let others = elsewhere(analyses, analysis, |other| {
        Some(percent(other.row("reuse", Some(layer), next, None, None)?.value))
    });
    Some(Finding {
        headline: format!(
            "At layer {layer} the next token uses {} of a token's experts again{}; {} by chance",
            percent(row.value),
            place(analyses, analysis),
            percent(chance)
        ),
        detail: format!(
            "The layer where most is used again.{}{others}",
            interval_sentence(row.interval, percent)
        ),
        figure: Some("reuse"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// The pair of experts that runs for the same tokens most, compared with what their popularity gives.
fn together(analyses: &[Analysis]) -> Option<Finding> {
    let found = trained(analyses).filter_map(|analysis| {
        let rows: Vec<&MetricRow> = analysis
            .rows_of("coactivation_lift")
            .filter(|row| row.domain.is_none() && row.phase.is_none())
            .collect();
        let among = rows.len();
        let apart = rows.into_iter().filter_map(|row| {
            let (expected, chance) = (expected_together(analysis, row)?, row.chance?);
            // Pairs are chosen on one half of the sequences and measured on the other.
            let least_error = (row.value / (expected / 2.0)).sqrt();
            let basis = Basis { sequences: analysis.sequences / 2, least_error, among };
            let size = effect(row.value, chance);
            let more = row.value > chance && size >= NOTABLE;
            (more && stands_out(row, chance, basis)).then_some((size, (row, chance)))
        });
        let (size, (row, chance)) = strongest(apart)?;
        Some((size, (analysis, row, chance, among)))
    });
    let (size, (analysis, row, chance, among)) = strongest(found)?;
    let (layer, Some(Index::Pair(i, j))) = (row.layer?, row.index) else { return None };
    let others = elsewhere(analyses, analysis, |other| {
        let same = other.row("coactivation_lift", Some(layer), row.index, None, None)?;
        Some(times(same.value / same.chance?))
    });
    Some(Finding {
        headline: format!(
            "Experts {i} and {j} of layer {layer} run for the same token {} as often as their popularity \
             gives{}",
            times(row.value / chance),
            place(analyses, analysis)
        ),
        detail: format!(
            "Measured on one half of the sequences{}; the {among} pairs looked at were chosen on the other \
             half.{others}",
            interval(row.interval.map(|(low, high)| (low / chance, high / chance)), times)
        ),
        figure: Some("coactivation"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// Tokens that popularity alone would give the pair of a row; `None` where too few for a lift to mean much.
fn expected_together(analysis: &Analysis, row: &MetricRow) -> Option<f64> {
    let Some(Index::Pair(i, j)) = row.index else { return None };
    let mut layers = analysis.structure.coactivation.iter();
    let layer = layers.find(|pairs| Some(pairs.layer) == row.layer)?;
    let expected = layer.expected(usize::from(i), usize::from(j));
    (expected >= Coactivation::LEAST_EXPECTED).then_some(expected)
}

/// The layer that tells most of the next.
fn path(analyses: &[Analysis]) -> Option<Finding> {
    let found = trained(analyses).filter_map(|analysis| {
        let rows = analysis.by_layer("path_information").filter_map(|(layer, row)| {
            let chance = row.chance?;
            // Information is the mean logarithm of the ratio between what follows an expert and what
            // follows any: in nats it is an effect as it stands.
            let size = (row.value - chance) * std::f64::consts::LN_2;
            above(analysis, row, chance, layers(analysis)).then_some((size, (layer, row, chance)))
        });
        let (size, (layer, row, chance)) = strongest(rows)?;
        Some((size, (analysis, layer, row, chance)))
    });
    let (size, (analysis, layer, row, chance)) =
        strongest(found).filter(|(size, _)| *size > 0.0)?;
    let recall = analysis.row("next_layer_recall", Some(layer), None, None, None);
    let recall = recall.map_or_else(String::new, |row| {
        let chance = row.chance.map_or_else(String::new, |c| format!(", {} by chance", percent(c)));
        format!(
            " All experts of the next layer are foretold with a recall of {}{chance}.",
            percent(row.value)
        )
    });
    let others = elsewhere(analyses, analysis, |other| {
        Some(format!("{} bits", number(other.value("path_information", Some(layer))?)))
    });
    Some(Finding {
        headline: format!(
            "The first expert of layer {layer} tells {} bits about that of the next MoE layer{}",
            number(row.value),
            place(analyses, analysis)
        ),
        detail: format!(
            "Independent layers would seem to tell {}{}.{recall}{others}",
            number(chance),
            interval(row.interval, number)
        ),
        figure: Some("path"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// The layer whose experts follow the tokens most.
fn vocabulary(analyses: &[Analysis]) -> Option<Finding> {
    let found = trained(analyses).filter_map(|analysis| {
        let rows = analysis.by_layer("vocabulary_specialisation").filter_map(|(layer, row)| {
            let chance = row.chance.filter(|chance| *chance > 0.0)?;
            above(analysis, row, chance, layers(analysis))
                .then(|| (effect(row.value, chance), (layer, row, chance)))
        });
        let (size, (layer, row, chance)) = strongest(rows)?;
        Some((size, (analysis, layer, row, chance)))
    });
    let (size, (analysis, layer, row, chance)) = strongest(found)?;
    let others = elsewhere(analyses, analysis, |other| {
        Some(percent(other.value("vocabulary_specialisation", Some(layer))?))
    });
    Some(Finding {
        headline: format!(
            "At layer {layer} a token selects its favourite expert {} of the time{}; {} by chance",
            percent(row.value),
            place(analyses, analysis),
            percent(chance)
        ),
        detail: format!(
            "Mean over token ids with at least ten occurrences, whatever stands before them.{}{others}",
            interval_sentence(row.interval, percent)
        ),
        figure: Some("vocabulary"),
        run: position(analyses, analysis),
        layer: Some(layer),
        effect: size,
        caveat: false,
    })
}

/// What balancing gains on as many GPUs as there are figures for.
fn placement(analyses: &[Analysis]) -> Option<Finding> {
    let found = trained(analyses).filter_map(|analysis| {
        let rows = analysis.rows_of("gpu_imbalance").filter(|row| row.layer.is_none());
        let before = rows.max_by_key(|row| row.index)?;
        let after = analysis.row("gpu_imbalance_eplb", None, before.index, None, None)?;
        let better = super::apart(before, after) && before.value > 1.1 * after.value;
        better.then(|| (effect(before.value, after.value), (analysis, before, after)))
    });
    let (size, (analysis, before, after)) = strongest(found)?;
    let Some(Index::Size(gpus)) = before.index else { return None };
    Some(Finding {
        headline: format!(
            "On {gpus} GPUs the busiest has {} the mean load{}, {} with EPLB",
            times(before.value),
            place(analyses, analysis),
            times(after.value)
        ),
        detail: format!(
            "Mean over layers, experts in order{} against replicated and packed with one redundant expert \
             per GPU{}; chosen on one half of the sequences and measured on the other.",
            interval(before.interval, number),
            interval(after.interval, number)
        ),
        figure: Some("placement"),
        run: position(analyses, analysis),
        layer: None,
        effect: size,
        caveat: false,
    })
}
