//! How well the model predicts the tokens.

use super::shared::means::token_sums;
use crate::metric::{Group, Metric, Need};
use crate::row::MetricRow;
use crate::study::Study;

/// Rows: overall; phase; domain; domain x phase. Prompt tokens are those of the prefill; those of
/// the decode phase were chosen by the model itself, which makes them likely. Interval: bootstrap
/// over sequences.
pub(crate) const MEAN_LOGPROB: Metric = Metric {
    name: "mean_logprob",
    title: "Mean log-probability per token",
    group: Group::Speed,
    unit: "nats/token",
    formula: "mean over tokens of ln p(token | tokens before it); the first of a sequence has none",
    chance: "",
    source: "Minus the cross-entropy; a uniform guess over V tokens is -ln V",
    needs: &[Need::Logprobs],
    compute,
};

fn compute(study: &Study<'_>) -> Vec<MetricRow> {
    let Some(logprob) = study.data.tokens.logprob.as_deref() else {
        return Vec::new();
    };
    let sums = token_sums(study, |token| {
        let value = logprob[token];
        (!value.is_nan()).then_some(f64::from(value))
    });
    let mut rows = Vec::new();
    for scope in study.scopes_crossed() {
        if let Some((value, interval)) = sums.ratio(scope, (f64::MIN, 0.0)) {
            let row = study.row(MEAN_LOGPROB.name, MEAN_LOGPROB.unit, scope);
            rows.push(MetricRow { value, interval, ..row });
        }
    }
    rows
}
