//! What `--list` prints: the definitions of metrics.

use moescope_analysis::{ComparisonMetric, Metric, Need};
use serde_json::{Value, json};

/// A metric of a run or of two, in words.
pub(crate) struct Definition {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    formula: &'static str,
    chance: &'static str,
    source: &'static str,
    needs: &'static [Need],
}

impl From<&Metric> for Definition {
    fn from(metric: &Metric) -> Self {
        let &Metric { name, title, unit, formula, chance, source, needs, .. } = metric;
        Self { name, title, unit, formula, chance, source, needs }
    }
}

impl From<&ComparisonMetric> for Definition {
    fn from(metric: &ComparisonMetric) -> Self {
        let &ComparisonMetric { name, title, unit, formula, chance, source, needs, .. } = metric;
        Self { name, title, unit, formula, chance, source, needs }
    }
}

/// Name, unit, definition, chance level and source of each metric.
pub(crate) fn text(metrics: impl Iterator<Item = Definition>) -> String {
    let mut text = String::new();
    for metric in metrics {
        text.push_str(&format!("{} ({}): {}\n", metric.name, metric.unit, metric.title));
        text.push_str(&format!("    {}\n", metric.formula));
        if !metric.chance.is_empty() {
            text.push_str(&format!("    chance: {}\n", metric.chance));
        }
        text.push_str(&format!("    source: {}\n", metric.source));
    }
    text
}

/// The same and what they need as one JSON document.
pub(crate) fn json(metrics: impl Iterator<Item = Definition>) -> anyhow::Result<String> {
    let metrics: Vec<Value> = metrics
        .map(|metric| {
            json!({
                "metric": metric.name,
                "title": metric.title,
                "unit": metric.unit,
                "formula": metric.formula,
                "chance": metric.chance,
                "source": metric.source,
                "needs": metric.needs.iter().map(|need| need.what()).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&metrics)? + "\n")
}
