//! Saliency and pruning by hand.

use moescope_analysis::simulate::saliency::{Ranking, Saliency, removed};
use moescope_analysis::{Index, LayerData, NO_EXPERT, Options, RunData, analyze_data};

use crate::support::{SMALL, close, uniform};

/// Three tokens, four experts: (0, 1), (1, 2), (0, none).
fn layer() -> LayerData {
    let mut layer = LayerData::from_ids(7, 4, 2, vec![0, 1, 1, 2, 0, NO_EXPERT]);
    // Renormalised: 3/4 and 1/4, 1/2 and 1/2, 1.
    layer.weights = Some(vec![1.5, 0.5, 0.2, 0.2, 0.3, f32::NAN]);
    layer.output_norms = Some(vec![2.0, 4.0, 6.0, 1.0, 5.0, f32::NAN]);
    layer
}

#[test]
fn by_hand() {
    let saliency = Saliency::of(&layer(), 0..3);
    assert_eq!(saliency.selections, [2.0, 2.0, 1.0, 0.0]);
    assert_eq!(saliency.by(Ranking::Ean).unwrap(), [7.0, 10.0, 1.0, 0.0]);
    // (3/4 * 2 + 5) / 2, (1/4 * 4 + 1/2 * 6) / 2, 1/2 * 1.
    for (found, expected) in
        saliency.by(Ranking::Reap).unwrap().into_iter().zip([3.25, 2.0, 0.5, 0.0])
    {
        close(found, expected);
    }
    assert_eq!(saliency.least_first(Ranking::Reap).unwrap(), [3, 2, 1, 0]);
    let data = RunData::from_ids("x", &[("a", 2), ("a", 1)], vec![layer()]).unwrap();
    let analysis = analyze_data(&data, &Options::default());
    let value =
        |metric, index| analysis.row(metric, Some(7), Some(index), None, None).unwrap().value;
    close(value("saliency_reap", Index::Expert(1)), 2.0);
    close(value("saliency_ean", Index::Expert(1)), 10.0);
    // Ranked over all tokens.
    let [pruning] = &analysis.structure.pruning[..] else { panic!("{:?}", analysis.structure) };
    assert_eq!(pruning.layer, 7);
    assert_eq!(pruning.reap, [3, 2, 1, 0]);
    assert_eq!(pruning.ean, [3, 2, 0, 1]);
    assert_eq!(pruning.frequency, [3, 2, 0, 1]);
}

/// Three rankings that differ, on the three tokens of one sequence; measured on the two of another.
#[test]
fn curves_by_hand() {
    let mut layer = LayerData::from_ids(7, 3, 2, vec![0, 1, 0, 1, 0, 2, 1, 2, 0, 1]);
    layer.weights = Some(vec![0.75, 0.25, 0.75, 0.25, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]);
    layer.output_norms = Some(vec![1.0, 4.0, 1.0, 4.0, 1.0, 5.0, 2.0, 4.0, 6.0, 4.0]);
    let data = RunData::from_ids("x", &[("a", 3), ("a", 2)], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &Options::default());
    let curve = |metric: &str| {
        let value = |n| {
            let row = analysis.row(metric, Some(7), Some(Index::Size(n)), None, None).unwrap();
            close(row.chance.unwrap(), f64::from(n) / 3.0);
            row.value
        };
        [1, 2, 3].map(value)
    };
    // To choose: REAP 2/3, 1, 5/2 (0 1 2); EAN 3, 8, 5 (0 2 1); selections 3, 2, 1 (2 1 0). To measure: 1, 2
    // and 1 of four selections, REAP 3, (1 + 2) / 2 and 2 of 6.5.
    for (ranking, traffic, saliency) in [
        ("", [0.25, 0.75, 1.0], [3.0, 4.5, 6.5]),
        ("_ean", [0.25, 0.5, 1.0], [3.0, 5.0, 6.5]),
        ("_frequency", [0.25, 0.75, 1.0], [2.0, 3.5, 6.5]),
    ] {
        let found = curve(&format!("pruned_traffic{ranking}"));
        found.iter().zip(traffic).for_each(|(found, expected)| close(*found, expected));
        let found = curve(&format!("pruned_saliency{ranking}"));
        found.iter().zip(saliency).for_each(|(found, expected)| close(*found, expected / 6.5));
    }
}

#[test]
fn what_is_missing_is_left_out() {
    let mut without = layer();
    without.output_norms = None;
    let ids_alone = Saliency::of(&without, 0..3);
    assert_eq!((ids_alone.by(Ranking::Reap), ids_alone.by(Ranking::Ean)), (None, None));
    assert_eq!(ids_alone.by(Ranking::Frequency).unwrap(), [2.0, 2.0, 1.0, 0.0]);
    let mut unweighted = layer();
    unweighted.weights = None;
    let unweighted = Saliency::of(&unweighted, 0..3);
    assert_eq!(unweighted.by(Ranking::Reap), None);
    assert_eq!(unweighted.by(Ranking::Ean).unwrap(), [7.0, 10.0, 1.0, 0.0]);
    let mut broken = layer();
    broken.output_norms.as_mut().unwrap()[1] = f32::NAN;
    broken.weights.as_mut().unwrap()[4] = 0.0;
    // Only the second token is whole.
    assert_eq!(Saliency::of(&broken, 0..3).selections, [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(removed(&[0.0, 0.0], &[0, 1]), [0.0, 0.0]);
    let mut short = uniform(SMALL, 1);
    short.layers[0].output_norms = Some(vec![1.0]);
    assert!(short.check().is_err());
}

/// Rankings need no more than they take: EAN norms, frequency ids.
#[test]
fn curves_of_what_was_recorded() {
    let mut data = uniform(SMALL, 5);
    let pruned = |data: &RunData| -> Vec<&'static str> {
        let analysis = analyze_data(data, &crate::support::FAST);
        let mut found: Vec<&str> = analysis.rows.iter().map(|row| row.metric).collect();
        found.retain(|metric| metric.starts_with("pruned_") || metric.starts_with("saliency_"));
        found.dedup();
        found
    };
    assert_eq!(pruned(&data), ["pruned_traffic_frequency"]);
    for layer in &mut data.layers {
        layer.output_norms = Some(vec![1.0; layer.ids.len()]);
    }
    assert_eq!(pruned(&data), ["saliency_ean", "pruned_traffic_ean", "pruned_traffic_frequency"]);
    for layer in &mut data.layers {
        layer.weights = Some(vec![0.5; layer.ids.len()]);
    }
    assert_eq!(pruned(&data).len(), 8);
}

#[test]
fn a_planted_expert_of_no_weight() {
    // Expert 4 of layer 1 adds a hundredth of what the others add.
    let mut data = uniform(SMALL, 5);
    for layer in &mut data.layers {
        layer.weights = Some(vec![0.5; layer.ids.len()]);
        let norm = |id: &u16| if *id == 4 && layer.layer == 1 { 0.01 } else { 1.0 };
        layer.output_norms = Some(layer.ids.iter().map(norm).collect());
    }
    let analysis = analyze_data(&data, &Options::default());
    let row = |metric, layer| {
        analysis.row(metric, Some(layer), Some(Index::Size(1)), None, None).unwrap()
    };
    // An even share of the traffic, next to none of the saliency.
    let traffic = row("pruned_traffic", 1);
    let (low, high) = traffic.interval.unwrap();
    assert!(low < 1.0 / 16.0 && 1.0 / 16.0 < high, "{traffic:?}");
    close(row("pruned_saliency", 1).value, 0.005 / (0.005 + 15.0 * 0.5));
    close(row("pruned_saliency", 0).value, 1.0 / 16.0);
}
