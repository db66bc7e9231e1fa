//! An order in which what belongs together stands together.

use kodama::{Method, linkage};

/// Orders `n` things so that similar ones are neighbours: the leaves of a dendrogram (average linkage),
/// each branch with its smaller end first. `distance(i, j)` is asked for i < j; anything that is no
/// number counts as far apart.
pub fn clustered_order(n: usize, distance: impl Fn(usize, usize) -> f64) -> Vec<usize> {
    if n < 3 {
        return (0..n).collect();
    }
    let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
    let mut distances: Vec<f64> = pairs.map(|(i, j)| distance(i, j)).collect();
    let far = distances.iter().copied().filter(|d| d.is_finite()).fold(0.0, f64::max);
    distances.iter_mut().filter(|d| !d.is_finite()).for_each(|d| *d = far);
    let dendrogram = linkage(&mut distances, n, Method::Average);
    // Step s joins two clusters into cluster n + s.
    let mut clusters: Vec<Vec<usize>> = (0..n).map(|leaf| vec![leaf]).collect();
    for step in dendrogram.steps() {
        let mut first = std::mem::take(&mut clusters[step.cluster1]);
        let mut second = std::mem::take(&mut clusters[step.cluster2]);
        if second.iter().min() < first.iter().min() {
            std::mem::swap(&mut first, &mut second);
        }
        first.append(&mut second);
        clusters.push(first);
    }
    clusters.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_group_become_neighbours() {
        // Odd and even numbers, mixed in the beginning.
        let distance = |i: usize, j: usize| if i % 2 == j % 2 { 0.1 } else { 1.0 };
        assert_eq!(clustered_order(6, distance), [0, 2, 4, 1, 3, 5]);
        // Every one once, whatever the distances are.
        let mut order =
            clustered_order(9, |i, j| if i == 3 { f64::NAN } else { (i * j % 5) as f64 });
        order.sort_unstable();
        assert_eq!(order, (0..9).collect::<Vec<_>>());
        assert_eq!(clustered_order(2, |_, _| 1.0), [0, 1]);
        assert!(clustered_order(0, |_, _| 1.0).is_empty());
    }
}
