//! Which GPU holds which experts under expert parallelism, and how even the load gets.
//!
//! DeepSeek's expert-parallel load balancer (EPLB, github.com/deepseek-ai/EPLB, `eplb.py`): experts
//! with much load get redundant copies, and copies are packed onto GPUs so that their loads come
//! out even. Where the router picks among groups of experts, a group stays on one node
//! ("hierarchical"); else all experts are one group on one node ("global").
//!
//! ```
//! use moescope_analysis::simulate::placement::{Cluster, Placement};
//!
//! let cluster = Cluster { gpus: 2, redundant: 2, groups: 1, nodes: 1 };
//! let placement = Placement::balanced(&[9.0, 1.0, 1.0, 1.0], &cluster)?;
//! // Three copies on each GPU; the copies of expert 0 share its load.
//! assert_eq!(placement.experts_of(0).len(), 3);
//! assert!(placement.imbalance(&[9.0, 1.0, 1.0, 1.0]).unwrap() < 1.2);
//! # Ok::<(), moescope_analysis::simulate::placement::PlacementError>(())
//! ```

mod held_out;
mod packing;

pub use held_out::{Imbalance, imbalances};
pub(crate) use held_out::{Plan, of_plans};

use packing::{pack, replicate};

/// The machines that experts are placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// GPUs, G; a multiple of `nodes`.
    pub gpus: usize,
    /// Redundant experts per layer, R: E + R copies in all, a multiple of G.
    pub redundant: usize,
    /// Groups that the router picks from; 1 where it does not.
    pub groups: usize,
    /// Nodes, which hold whole groups; where they do not divide the groups, groups are ignored.
    pub nodes: usize,
}

/// A cluster that experts cannot be placed on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A number that has to divide another does not.
    #[error("{what} {number} cannot be divided evenly into {parts} {into}; {hint}")]
    Uneven {
        /// What is divided, such as `12 experts and 3 redundant ones:`.
        what: String,
        /// Its number.
        number: usize,
        /// Into how many parts.
        parts: usize,
        /// What the parts are.
        into: &'static str,
        /// What to do.
        hint: String,
    },
    /// There is nothing to place or nothing to place it on.
    #[error("{0}: expected at least 1, found 0")]
    Zero(&'static str),
}

/// A placement of the experts of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Expert of each copy, GPU by GPU, `[E + R]`.
    copies: Vec<usize>,
    /// Number of copies of each expert, `[E]`.
    counts: Vec<usize>,
    gpus: usize,
}

impl Cluster {
    /// Checks that E experts can be placed.
    ///
    /// # Errors
    ///
    /// [`PlacementError`] with the number that does not fit.
    pub fn check(&self, experts: usize) -> Result<(), PlacementError> {
        for (what, number) in [
            ("experts", experts),
            ("GPUs", self.gpus),
            ("groups", self.groups),
            ("nodes", self.nodes),
        ] {
            if number == 0 {
                return Err(PlacementError::Zero(what));
            }
        }
        let divides = |what: String, number: usize, parts: usize, into, hint: String| match number
            .is_multiple_of(parts)
        {
            true => Ok(()),
            false => Err(PlacementError::Uneven { what, number, parts, into, hint }),
        };
        let copies = experts + self.redundant;
        let missing = copies.next_multiple_of(self.gpus) - copies;
        divides(
            format!("{experts} experts and {} redundant ones:", self.redundant),
            copies,
            self.gpus,
            "GPUs",
            format!("use {} redundant experts", self.redundant + missing),
        )?;
        if self.hierarchical() {
            let hint = || "leave groups and nodes at 1 to ignore them".to_owned();
            divides("experts:".to_owned(), experts, self.groups, "groups", hint())?;
            divides("GPUs:".to_owned(), self.gpus, self.nodes, "nodes", hint())?;
            divides("copies:".to_owned(), copies, self.nodes, "nodes", hint())?;
        }
        Ok(())
    }

    /// Whether groups stay on one node.
    fn hierarchical(&self) -> bool {
        self.groups.is_multiple_of(self.nodes)
    }
}

impl Placement {
    /// Experts in order, as evenly many on each GPU as can be: what is done without looking at loads.
    pub fn contiguous(experts: usize, gpus: usize) -> Self {
        Self { copies: (0..experts).collect(), counts: vec![1; experts], gpus: gpus.max(1) }
    }

    /// Places experts with these loads, `[E]`.
    ///
    /// # Errors
    ///
    /// As [`Cluster::check`].
    pub fn balanced(loads: &[f64], cluster: &Cluster) -> Result<Self, PlacementError> {
        let experts = loads.len();
        cluster.check(experts)?;
        let (groups, nodes) =
            if cluster.hierarchical() { (cluster.groups, cluster.nodes) } else { (1, 1) };
        let group_size = experts / groups;
        // Groups onto nodes.
        let group_loads: Vec<f64> =
            loads.chunks_exact(group_size).map(|group| group.iter().sum()).collect();
        let mut placed = Self { copies: Vec::new(), counts: vec![0; experts], gpus: cluster.gpus };
        for node in pack(&group_loads, nodes) {
            // Experts of the node, in the order of its groups.
            let members: Vec<usize> = node
                .iter()
                .flat_map(|group| group * group_size..(group + 1) * group_size)
                .collect();
            let member_loads: Vec<f64> = members.iter().map(|&expert| loads[expert]).collect();
            // Copies within the node, then copies onto its GPUs.
            let copies = (experts + cluster.redundant) / nodes;
            let (copy_of, counts) = replicate(&member_loads, copies);
            let copy_loads: Vec<f64> = copy_of
                .iter()
                .map(|&member| member_loads[member] / counts[member] as f64)
                .collect();
            for gpu in pack(&copy_loads, cluster.gpus / nodes) {
                placed.copies.extend(gpu.iter().map(|&copy| members[copy_of[copy]]));
            }
            for (member, count) in members.into_iter().zip(counts) {
                placed.counts[member] = count;
            }
        }
        Ok(placed)
    }

    /// Expert of each copy, GPU by GPU, `[E + R]`: EPLB's `phy2log`.
    pub fn copies(&self) -> &[usize] {
        &self.copies
    }

    /// Experts on a GPU; one more than once if it holds several copies.
    pub fn experts_of(&self, gpu: usize) -> &[usize] {
        let at = |gpu: usize| gpu * self.copies.len() / self.gpus;
        &self.copies[at(gpu)..at(gpu + 1)]
    }

    /// Load of each GPU, `[G]`, from loads of the experts, `[E]`; copies share that of their expert.
    pub fn gpu_loads(&self, loads: &[f64]) -> Vec<f64> {
        let share = |&expert: &usize| loads[expert] / self.counts[expert] as f64;
        (0..self.gpus).map(|gpu| self.experts_of(gpu).iter().map(share).sum()).collect()
    }

    /// Load of the busiest GPU over the mean: how many times as long a layer takes as with even
    /// loads. `None` without any load.
    pub fn imbalance(&self, loads: &[f64]) -> Option<f64> {
        let share = |&expert: &usize| loads[expert] / self.counts[expert] as f64;
        let (mut sum, mut most) = (0.0, 0.0f64);
        for gpu in 0..self.gpus {
            let load: f64 = self.experts_of(gpu).iter().map(share).sum();
            sum += load;
            most = most.max(load);
        }
        let mean = sum / self.gpus as f64;
        (mean > 0.0).then(|| most / mean)
    }
}
