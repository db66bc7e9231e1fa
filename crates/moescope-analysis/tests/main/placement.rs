//! Expert-parallel placement: DeepSeek's published example, and what must hold for any loads.

use moescope_analysis::simulate::placement::{Cluster, Placement, PlacementError};
use moescope_analysis::{Analysis, Index, LayerData, RunData, analyze_data};
use proptest::prelude::*;

use crate::support::{FAST, SMALL, Shape, close, run, uniform, uniformly};

/// The example of EPLB's README: two layers, 12 experts in 4 groups, 4 redundant, 2 nodes of 4 GPUs.
#[test]
fn the_example_of_deepseek() {
    let weights = [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ];
    let copies = [
        [5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
        [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1],
    ];
    let cluster = Cluster { gpus: 8, redundant: 4, groups: 4, nodes: 2 };
    for (weights, copies) in weights.iter().zip(copies) {
        let loads = weights.map(f64::from);
        let placement = Placement::balanced(&loads, &cluster).unwrap();
        assert_eq!(placement.copies(), copies);
        let before = Placement::contiguous(12, 8).imbalance(&loads).unwrap();
        assert!(placement.imbalance(&loads).unwrap() < before);
    }
}

#[test]
fn by_hand() {
    let loads = [8.0, 1.0, 2.0, 1.0];
    // In order: 9 and 3, mean 6.
    close(Placement::contiguous(4, 2).imbalance(&loads).unwrap(), 1.5);
    // Heaviest first: 8 left, 2 and 1 right; then the right is full: 1 left.
    let cluster = Cluster { gpus: 2, redundant: 0, groups: 1, nodes: 1 };
    let packed = Placement::balanced(&loads, &cluster).unwrap();
    assert_eq!((packed.experts_of(0), packed.experts_of(1)), (&[0, 3][..], &[2, 1][..]));
    close(packed.imbalance(&loads).unwrap(), 9.0 / 6.0);
    // Two more copies, both of expert 0: 8/3 each, three of them against 1 + 2 + 1.
    let cluster = Cluster { redundant: 2, ..cluster };
    let placed = Placement::balanced(&loads, &cluster).unwrap();
    assert_eq!(placed.copies().iter().filter(|expert| **expert == 0).count(), 3);
    close(placed.gpu_loads(&loads).iter().sum(), 12.0);
    // 8/3, 8/3, 8/3, 2, 1, 1: left 8/3 + 8/3 + 1, right 8/3 + 2 + 1.
    close(placed.imbalance(&loads).unwrap(), (8.0 / 3.0 * 2.0 + 1.0) / 6.0);
    assert_eq!(placed.imbalance(&[0.0; 4]), None);
    // Uneven numbers in order: 5 experts on 2 GPUs.
    let contiguous = Placement::contiguous(5, 2);
    assert_eq!((contiguous.experts_of(0).len(), contiguous.experts_of(1).len()), (2, 3));
}

/// The metrics: placed by one half of the sequences, measured on the other.
#[test]
fn metrics_by_hand() {
    // Loads 8, 1, 2, 1 in the sequence that chooses and 2, 4, 4, 2 in the one that measures.
    let ids = [[8, 1, 2, 1], [2, 4, 4, 2]].map(|loads| {
        (0u16..).zip(loads).flat_map(|(expert, load)| vec![expert; load]).collect::<Vec<u16>>()
    });
    let layer = LayerData::from_ids(3, 4, 1, ids.concat());
    let data = RunData::from_ids("two", &[("a", 12), ("a", 12)], vec![layer]).unwrap();
    let analysis = analyze_data(&data, &FAST);
    for layer in [Some(3), None] {
        let of =
            |metric| analysis.row(metric, layer, Some(Index::Size(2)), None, None).unwrap().value;
        // In order: 0 and 1 against 2 and 3, six each.
        close(of("gpu_imbalance"), 1.0);
        // By the loads of the first sequence 0 goes with 3, and 2 with 1: 4 against 8.
        close(of("gpu_imbalance_packed"), 8.0 / 6.0);
        // Three copies of 0, two of them with 3: 2/3 + 2/3 + 2 against 2/3 + 4 + 4.
        close(of("gpu_imbalance_eplb"), (2.0 / 3.0 + 8.0) / 6.0);
    }
}

#[test]
fn what_cannot_be_placed() {
    let cluster = Cluster { gpus: 8, redundant: 3, groups: 1, nodes: 1 };
    let error = Placement::balanced(&[1.0; 12], &cluster).unwrap_err().to_string();
    assert_eq!(
        error,
        "12 experts and 3 redundant ones: 15 cannot be divided evenly into 8 GPUs; use 4 redundant experts"
    );
    let zero = Cluster { gpus: 0, ..cluster };
    assert_eq!(Placement::balanced(&[1.0; 12], &zero), Err(PlacementError::Zero("GPUs")));
    assert_eq!(Placement::balanced(&[], &cluster), Err(PlacementError::Zero("experts")));
    let groups = Cluster { gpus: 8, redundant: 4, groups: 5, nodes: 5 };
    assert!(Placement::balanced(&[1.0; 12], &groups).unwrap_err().to_string().contains("5 groups"));
    // Groups that nodes do not divide are ignored: the global policy.
    let global = Cluster { groups: 3, nodes: 2, redundant: 4, gpus: 8 };
    let alone = Cluster { groups: 1, nodes: 1, ..global };
    let loads: Vec<f64> = (0..12).map(f64::from).collect();
    assert_eq!(Placement::balanced(&loads, &global), Placement::balanced(&loads, &alone));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_expert_has_a_copy_and_loads_add_up(
        (nodes, groups_per_node, group_size, gpus_per_node) in (1usize..4, 1usize..4, 1usize..5, 1usize..5),
        more in 0usize..3,
        seed in any::<u64>(),
    ) {
        let experts = nodes * groups_per_node * group_size;
        let gpus = nodes * gpus_per_node;
        let redundant = experts.next_multiple_of(gpus) - experts + more * gpus;
        let cluster = Cluster { gpus, redundant, groups: nodes * groups_per_node, nodes };
        let mut rng = moescope_analysis::rng::Rng::new(seed);
        let loads: Vec<f64> = (0..experts).map(|_| rng.below(100) as f64).collect();
        let placement = Placement::balanced(&loads, &cluster).unwrap();
        prop_assert_eq!(placement.copies().len(), experts + redundant);
        for expert in 0..experts {
            prop_assert!(placement.copies().contains(&expert));
        }
        let total: f64 = loads.iter().sum();
        let gpus: f64 = placement.gpu_loads(&loads).iter().sum();
        prop_assert!((gpus - total).abs() < 1e-6);
        // A group stays on one node.
        let per_node = placement.copies().len() / nodes;
        let node_of = |expert: usize| {
            let mut at = placement.copies().iter().enumerate().filter(|(_, e)| **e == expert);
            at.next().map(|(copy, _)| copy / per_node)
        };
        for group in 0..nodes * groups_per_node {
            let members = group * group_size..(group + 1) * group_size;
            prop_assert!(members.clone().all(|e| node_of(e) == node_of(group * group_size)));
        }
    }
}

fn imbalance(analysis: &Analysis, metric: &str, gpus: u32) -> f64 {
    analysis.row(metric, None, Some(Index::Size(gpus)), None, None).unwrap().value
}

#[test]
fn a_hot_pair_side_by_side() {
    // Experts 0 and 1 take half of the selections and lie on one GPU.
    let shape = Shape { layers: 1, ..SMALL };
    let data = run(shape, 3, |_, _, _, rng, chosen| {
        if rng.unit() < 0.5 {
            chosen.extend([0, 1]);
        }
        uniformly(rng, 16, 2, chosen);
    });
    let analysis = analyze_data(&data, &FAST);
    let of = |metric| imbalance(&analysis, metric, 8);
    // (1/2 + 1/8 * 1/2) of the load on one of eight.
    assert!((of("gpu_imbalance") - 4.5).abs() < 0.2, "{}", of("gpu_imbalance"));
    // Apart, each makes a GPU carry (1/4 + 2/16 * 1/2 * 1/2 + the other's 1/32).
    assert!((of("gpu_imbalance_packed") - 2.5).abs() < 0.2, "{}", of("gpu_imbalance_packed"));
    assert!(of("gpu_imbalance_eplb") < 1.25, "{}", of("gpu_imbalance_eplb"));
    let row = analysis.rows_of("gpu_imbalance").next().unwrap();
    let (low, high) = row.interval.unwrap();
    assert!(low < row.value && row.value < high);
    // Even loads stay even: what is left is noise.
    let analysis = analyze_data(&uniform(SMALL, 1), &FAST);
    for metric in ["gpu_imbalance", "gpu_imbalance_packed", "gpu_imbalance_eplb"] {
        assert!(imbalance(&analysis, metric, 2) < 1.1, "{metric}");
    }
}
