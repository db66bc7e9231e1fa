//! The two steps of EPLB.

/// Packs items into `packs` packs of equally many, heaviest item first, each into the lightest pack
/// with room; of equal ones the first. Returns the items of each pack in the order they came.
///
/// `packs` divides the number of items. With one item per pack they stay in order.
pub(super) fn pack(weights: &[f64], packs: usize) -> Vec<Vec<usize>> {
    let room = weights.len() / packs;
    if room == 1 {
        return (0..packs).map(|item| vec![item]).collect();
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut packed = vec![Vec::with_capacity(room); packs];
    let mut totals = vec![0.0; packs];
    for item in order {
        let open = (0..packs).filter(|&pack| packed[pack].len() < room);
        if let Some(pack) = open.min_by(|&a, &b| f64::total_cmp(&totals[a], &totals[b])) {
            packed[pack].push(item);
            totals[pack] += weights[item];
        }
    }
    packed
}

/// Makes `copies` copies of the items: one of each, and every further one of the item with the
/// largest load per copy (of equal ones the first). Returns the item of each copy and the number of
/// copies of each item.
pub(super) fn replicate(loads: &[f64], copies: usize) -> (Vec<usize>, Vec<usize>) {
    let mut copy_of: Vec<usize> = (0..loads.len()).collect();
    let mut counts = vec![1; loads.len()];
    while copy_of.len() < copies {
        let load = |item: usize| loads[item] / counts[item] as f64;
        let heaviest = (0..loads.len()).reduce(|a, b| if load(b) > load(a) { b } else { a });
        let Some(heaviest) = heaviest else {
            break;
        };
        copy_of.push(heaviest);
        counts[heaviest] += 1;
    }
    (copy_of, counts)
}
