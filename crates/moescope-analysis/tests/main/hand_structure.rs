//! Metrics of structure and locality on a run small enough to work out on paper.

use moescope_analysis::{Analysis, Index, LayerData, MetricRow, RunData, TokenTexts, analyze_data};
use moescope_trace::Phase::{Decode, Prefill};
use moescope_trace::manifest::TimingMode;

use crate::support::{FAST, close, steps};

/// Two sequences of four tokens, two layers of four experts, two per token.
fn walk() -> RunData {
    let first = vec![0, 1, 0, 2, 0, 1, 3, 1, /* b */ 0, 1, 1, 0, 2, 3, 0, 1];
    let second = vec![1, 0, 2, 0, 1, 0, 1, 3, /* b */ 1, 0, 0, 1, 3, 2, 1, 0];
    let layers = vec![LayerData::from_ids(3, 4, 2, first), LayerData::from_ids(5, 4, 2, second)];
    RunData::from_ids("walk", &[("a", 4), ("b", 4)], layers).unwrap()
}

#[track_caller]
fn at<'a>(analysis: &'a Analysis, metric: &str, index: Option<Index>) -> &'a MetricRow {
    analysis.row(metric, Some(3), index, None, None).unwrap()
}

#[test]
fn reuse() {
    let analysis = analyze_data(&walk(), &FAST);
    let lag = |lag| at(&analysis, "reuse", Some(Index::Lag(lag)));
    // Shared with the token before: 1, 1, 1 in "a"; 2, 0, 0 in "b".
    close(lag(1).value, 5.0 / 12.0);
    close(lag(2).value, 0.5);
    close(lag(3).value, 0.75);
    assert_eq!(lag(3).chance, Some(0.5));
    let lags = analysis.rows_of("reuse").filter(|row| row.layer == Some(3) && row.domain.is_none());
    assert_eq!(lags.count(), 3, "no pair of tokens is further apart");
    let of_b = analysis.row("reuse", Some(3), Some(Index::Lag(1)), Some("b"), None).unwrap();
    close(of_b.value, 2.0 / 6.0);
}

#[test]
fn reuse_belongs_to_the_phase_of_the_later_token() {
    let mut data = walk();
    data.tokens.phase = [Prefill, Prefill, Prefill, Decode].repeat(2);
    let analysis = analyze_data(&data, &FAST);
    let value = |phase| {
        analysis.row("reuse", Some(3), Some(Index::Lag(1)), None, Some(phase)).unwrap().value
    };
    // 1, 1 and 2, 0; then 1 and 0.
    close(value("prefill"), 4.0 / 8.0);
    close(value("decode"), 1.0 / 4.0);
}

#[test]
fn working_set() {
    let analysis = analyze_data(&walk(), &FAST);
    let size = |size| at(&analysis, "working_set", Some(Index::Size(size)));
    // {0 1 2}, {0 1 3}; {0 1}, {0 1 2 3}.
    close(size(2).value, 3.0);
    close(size(2).chance.unwrap(), 4.0 * (1.0 - 0.25));
    close(size(4).value, 4.0);
    close(size(4).chance.unwrap(), 4.0 * (1.0 - 0.0625));
    assert_eq!(analysis.row("working_set", Some(3), Some(Index::Size(8)), None, None), None);
}

#[test]
fn batch_working_set() {
    let analysis = analyze_data(&walk(), &FAST);
    let row = at(&analysis, "batch_working_set", Some(Index::Size(2)));
    // {0 1}, {0 1 2}, {0 1 2 3}, {0 1 3}.
    close(row.value, 3.0);
    close(row.chance.unwrap(), 3.0);
    assert_eq!(row.interval, None, "a single batch has no spread");
}

/// Sequences of 10 and of 100 tokens: every size sees the same 55 places of each, a short one five and a half
/// times. First tokens share two experts, all others have two of their sequence's own.
#[test]
fn batches_of_unlike_lengths() {
    let lengths: Vec<usize> = (0..64).map(|s| if s % 2 == 0 { 10 } else { 100 }).collect();
    let sequences: Vec<(&str, usize)> = lengths.iter().map(|&length| ("a", length)).collect();
    let mut ids = Vec::new();
    for (s, &length) in (1u16..).zip(&lengths) {
        ids.extend([0, 1]);
        (1..length).for_each(|_| ids.extend([2 * s, 2 * s + 1]));
    }
    let layers = vec![LayerData::from_ids(0, 130, 2, ids)];
    let data = RunData::from_ids("lengths", &sequences, layers).unwrap();
    let analysis = analyze_data(&data, &FAST);
    let value = |size| {
        analysis
            .row("batch_working_set", Some(0), Some(Index::Size(size)), None, None)
            .unwrap()
            .value
    };
    // All are at their first token once, the short ones five times more.
    close(value(64), (2.0 + 5.0 * (2.0 + 64.0) + 49.0 * 128.0) / 55.0);
    // Of a pair one is short on average; one of the two is in half of the pairs at least.
    let pair = |short: f64| (2.0 + 5.0 * (2.0 + 2.0 * short) + 49.0 * 4.0) / 55.0;
    assert!((pair(0.5)..=pair(1.0)).contains(&value(2)), "{}", value(2));
}

#[test]
fn lorenz() {
    // Ranked on "a" (c = [3, 3, 1, 1]), measured on "b" (c = [3, 3, 1, 1]).
    let analysis = analyze_data(&walk(), &FAST);
    for (size, value) in [(1, 3.0), (2, 6.0), (3, 7.0), (4, 8.0)] {
        let row = at(&analysis, "lorenz", Some(Index::Size(size)));
        close(row.value, value / 8.0);
        close(row.chance.unwrap(), f64::from(size) / 4.0);
    }
}

#[test]
fn coactivation() {
    let analysis = analyze_data(&walk(), &FAST);
    // Chosen on "a": (0 2) and (1 3) once each where half was expected, then (0 1).
    let pairs: Vec<Index> = analysis
        .rows_of("coactivation_lift")
        .filter(|row| row.layer == Some(3) && row.domain.is_none())
        .filter_map(|row| row.index)
        .collect();
    assert_eq!(pairs, [Index::Pair(0, 2), Index::Pair(1, 3), Index::Pair(0, 1)]);
    // Measured on "b": 0 and 1 together in three of four tokens, and never apart.
    let both = at(&analysis, "coactivation", Some(Index::Pair(1, 0)));
    assert_eq!((both.value, both.chance), (1.0, Some(1.0 / 3.0)));
    let lift = at(&analysis, "coactivation_lift", Some(Index::Pair(0, 1)));
    close(lift.value, 4.0 / 3.0);
    close(lift.chance.unwrap(), 2.0 / 3.0);
    assert_eq!(at(&analysis, "coactivation", Some(Index::Pair(0, 2))).value, 0.0);

    let table = &analysis.structure.coactivation[0];
    assert_eq!(table.counts, [6, 5, 1, 0, 5, 6, 0, 1, 1, 0, 2, 1, 0, 1, 1, 2]);
    assert_eq!(table.conditional(0, 1), Some(5.0 / 6.0));
    close(table.lift(0, 1).unwrap(), 5.0 * 8.0 / 36.0);
    close(table.chance_lift(), 2.0 / 3.0);
}

#[test]
fn coactivation_excess() {
    let analysis = analyze_data(&walk(), &FAST);
    // N = 5 for (0 1), 1 for (0 2), (1 3), (2 3). By symmetry a = [x, x, y, y] with
    // x² + 2xy = 6 and y² + 2xy = 2, so 3y⁴ + 20y² - 4 = 0.
    let y2 = (448.0f64.sqrt() - 20.0) / 6.0;
    let (x2, xy) = (y2 + 4.0, (2.0 - y2) / 2.0);
    let distance = (5.0 - x2) + 2.0 * (1.0 - xy) + 2.0 * xy + (1.0 - y2);
    close(at(&analysis, "coactivation_excess", None).value, distance / 16.0);
}

#[test]
fn expert_path() {
    let analysis = analyze_data(&walk(), &FAST);
    // First choices 0>1 0>2 0>1 3>1 in "a", 0>1 1>0 2>3 0>1 in "b".
    let bits = 0.5 * (32.0f64 / 25.0).log2() + 2.0 / 8.0 * (8.0f64 / 5.0).log2() + 2.0 / 8.0 * 3.0;
    close(at(&analysis, "path_information", None).value, bits);
    let path = |i, j| analysis.row("expert_path", Some(3), Some(Index::Pair(i, j)), None, None);
    assert_eq!(path(0, 1).map(|row| (row.value, row.chance)), Some((1.0, Some(0.25))));
    assert_eq!(path(0, 2).map(|row| row.value), Some(0.0));
    assert_eq!(path(3, 1), None, "expert 3 is no first choice in the half that measures");
    let table = &analysis.structure.transitions[0];
    assert_eq!((table.layer, table.next, table.experts), (3, 5, [4, 4]));
    assert_eq!(table.counts, [0, 4, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0]);
    assert_eq!(table.conditional(0, 1), Some(0.8));
    // The last layer leads nowhere.
    assert!(analysis.rows_of("path_information").all(|row| row.layer == Some(3)));
}

#[test]
fn next_layer() {
    let analysis = analyze_data(&walk(), &FAST);
    // "b" from the transitions of "a": 2, 2, 0, 2 of 2 found.
    let recall = at(&analysis, "next_layer_recall", None);
    assert_eq!((recall.value, recall.chance), (0.75, Some(0.5)));
    let exact = at(&analysis, "next_layer_exact", None);
    assert_eq!((exact.value, exact.chance), (3.0 / 4.0, Some(1.0 / 6.0)));
    let of_b = analysis.row("next_layer_recall", Some(3), None, Some("b"), None).unwrap();
    assert_eq!(of_b.value, 0.75);
}

#[test]
fn vocabulary() {
    // Twelve tokens 5, ten tokens 7, nine tokens 8; one expert each.
    let ids = [[2; 9].as_slice(), &[0, 1, 3], &[1; 6], &[0; 4], &[3; 9]].concat();
    let mut data =
        RunData::from_ids("words", &[("a", 31)], vec![LayerData::from_ids(3, 4, 1, ids)]).unwrap();
    data.tokens.token_id = [[5; 12].as_slice(), &[7; 10], &[8; 9]].concat();
    let texts: Vec<String> = data.tokens.token_id.iter().map(|id| format!("<{id}>")).collect();
    data.tokens.texts = TokenTexts::collect(texts.iter().map(String::as_str));
    data.check().unwrap();
    let analysis = analyze_data(&data, &FAST);
    // 9 of 12 and 6 of 10; nine occurrences are too few.
    let row = at(&analysis, "vocabulary_specialisation", None);
    close(row.value, (9.0 / 12.0 + 6.0 / 10.0) / 2.0);
    assert_eq!(row.interval, None);
    // Before a 5 come eleven 5s, nine of them with expert 2; before a 7 a 5 and nine 7s.
    close(at(&analysis, "next_token_specialisation", None).value, (9.0 / 11.0 + 6.0 / 10.0) / 2.0);
    let specialists = &analysis.structure.specialists[0];
    let best = &specialists.input[0];
    assert_eq!(
        (best.token_id, best.text.as_str(), best.expert, best.occurrences, best.share),
        (5, "<5>", 2, 12, 0.75)
    );
    assert_eq!(specialists.next[0].text, "<5>");
    // The chance level is the mean of those of the two ids.
    let chance = specialists.input.iter().map(|token| token.chance).sum::<f64>() / 2.0;
    close(row.chance.unwrap(), chance);
}

#[test]
fn passes_and_waiting() {
    let mut data = walk();
    data.tokens.phase = [Prefill, Prefill, Prefill, Decode].repeat(2);
    // Each prompt is a pass; the two generated tokens are one pass of two sequences.
    data.tokens.step = vec![0, 0, 0, 2, 1, 1, 1, 2];
    data.steps = steps(&[(Prefill, 3, 5_000_000), (Prefill, 3, 7_000_000), (Decode, 2, 1_000_000)]);
    data.steps.batch = vec![1, 1, 2];
    data.manifest.settings.timing_mode = TimingMode::EndToEnd;
    data.check().unwrap();
    let analysis = analyze_data(&data, &FAST);
    let distinct = |phase| {
        let row = analysis.row("distinct_experts", Some(3), None, None, Some(phase)).unwrap();
        (row.value, row.chance.unwrap())
    };
    // {0 1 2}, {0 1 2 3}; {3 1} and {0 1}.
    assert_eq!(distinct("prefill"), (3.5, 3.5));
    assert_eq!(distinct("decode"), (3.0, 3.0));
    let time = |metric, percent, phase| {
        let index = Some(Index::Percentile(percent));
        analysis.row(metric, None, index, None, Some(phase)).unwrap().value
    };
    assert_eq!((time("ttft", 50, "prefill"), time("ttft", 99, "prefill")), (5e6, 7e6));
    assert_eq!((time("tpot", 50, "decode"), time("itl", 95, "decode")), (1e6, 1e6));
}
