//! Saliency and pruning by hand.

use moescope_analysis::simulate::saliency::{Saliency, removed};
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
    let saliency = Saliency::of(&layer(), 0..3).unwrap();
    assert_eq!(saliency.selections, [2.0, 2.0, 1.0, 0.0]);
    assert_eq!(saliency.norms, [7.0, 10.0, 1.0, 0.0]);
    // (3/4 * 2 + 5) / 2, (1/4 * 4 + 1/2 * 6) / 2, 1/2 * 1.
    for (found, expected) in saliency.reap().into_iter().zip([3.25, 2.0, 0.5, 0.0]) {
        close(found, expected);
    }
    assert_eq!(saliency.least_salient(), [3, 2, 1, 0]);
    let data = RunData::from_ids("x", &[("a", 2), ("a", 1)], vec![layer()]).unwrap();
    let analysis = analyze_data(&data, &Options::default());
    let value =
        |metric, index| analysis.row(metric, Some(7), Some(index), None, None).unwrap().value;
    close(value("saliency_reap", Index::Expert(1)), 2.0);
    close(value("saliency_ean", Index::Expert(1)), 10.0);
    // The two least salient: no selection and one of five; 0.5 of 5.75.
    close(value("pruned_traffic", Index::Size(1)), 0.0);
    close(value("pruned_traffic", Index::Size(2)), 0.2);
    close(value("pruned_saliency", Index::Size(2)), 0.5 / 5.75);
    close(value("pruned_saliency", Index::Size(4)), 1.0);
}

#[test]
fn what_is_missing_is_left_out() {
    let mut without = layer();
    without.output_norms = None;
    assert_eq!(Saliency::of(&without, 0..3), None);
    let mut broken = layer();
    broken.output_norms.as_mut().unwrap()[1] = f32::NAN;
    broken.weights.as_mut().unwrap()[4] = 0.0;
    // Only the second token is whole.
    assert_eq!(Saliency::of(&broken, 0..3).unwrap().selections, [0.0, 1.0, 1.0, 0.0]);
    assert_eq!(removed(&[0.0, 0.0], &[0, 1]), [0.0, 0.0]);
    let mut short = uniform(SMALL, 1);
    short.layers[0].output_norms = Some(vec![1.0]);
    assert!(short.check().is_err());
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
