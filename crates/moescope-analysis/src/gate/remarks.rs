//! What a reader should know of measurements that compare: gathered over all pairs, each thing said once.

use moescope_trace::fingerprint::{Aspect, Difference};
use moescope_trace::manifest::labels;

use super::comparable::{Across, GateError, conditions, same_task};
use super::evidence::Evidence;

/// Remarks on the pairs of one look.
#[derive(Default)]
pub(super) struct Remarks {
    /// Pairs looked at.
    pairs: usize,
    /// Said of all pairs at once, each once.
    plain: Vec<String>,
    /// States that differ: the first difference of a field, and in how many pairs there was one.
    states: Vec<(Difference, usize)>,
}

impl Remarks {
    /// Checks that two measurements compare and remarks what may matter and doesn't forbid it.
    ///
    /// # Errors
    ///
    /// [`GateError`].
    pub(super) fn add(
        &mut self,
        base: &Evidence,
        new: &Evidence,
        across: Across,
    ) -> Result<(), GateError> {
        let (allowed, states) = conditions(base, new, across)?;
        same_task(base, new)?;
        self.pairs += 1;
        for note in allowed {
            self.say(note);
        }
        for difference in states {
            match self.states.iter_mut().find(|(found, _)| found.field == difference.field) {
                Some((_, pairs)) => *pairs += 1,
                None => self.states.push((difference, 1)),
            }
        }
        for (one, other, whose) in [(base, new, &new.name), (new, base, &base.name)] {
            for row in one.rows.iter().filter(|row| other.row(&row.name).is_none()) {
                self.say(format!("row {} is not in {whose} and was not compared", row.name));
            }
        }
        for one in [base, new] {
            let labels = labels(&one.fingerprint.model, &one.fingerprint.device);
            if !labels.is_empty() {
                self.say(format!("{}: {}", one.name, labels.join(", ")));
            }
            if one.fingerprint.is_dirty() {
                let commit = one.fingerprint.git_commit.as_deref().unwrap_or_default();
                self.say(format!(
                    "{}: built from a tree with changes that its commit does not have ({commit})",
                    one.name
                ));
            }
            one.notes.iter().for_each(|note| self.say(note.clone()));
        }
        Ok(())
    }

    /// Remarks what changed between two measurements of one side.
    pub(super) fn add_later(&mut self, first: &Evidence, later: &Evidence) {
        let differences = first.fingerprint.differences(&later.fingerprint);
        let states: Vec<String> = differences
            .iter()
            .filter(|difference| difference.aspect == Aspect::State)
            .map(ToString::to_string)
            .collect();
        if !states.is_empty() {
            let (first, later) = (&first.name, &later.name);
            self.say(format!(
                "{first} and {later}: the machine was in another state: {}",
                states.join(", ")
            ));
        }
    }

    fn say(&mut self, note: String) {
        if !self.plain.contains(&note) {
            self.plain.push(note);
        }
    }

    /// All of them, states first: they differ from pair to pair.
    pub(super) fn into_notes(self) -> Vec<String> {
        let of = |(difference, pairs): &(Difference, usize)| match self.pairs {
            1 => difference.to_string(),
            all => format!("{difference} (in {pairs} of {all} pairs)"),
        };
        let states: Vec<String> = self.states.iter().map(of).collect();
        let state = (!states.is_empty())
            .then(|| format!("the machine was in another state: {}", states.join(", ")));
        state.into_iter().chain(self.plain).collect()
    }
}
