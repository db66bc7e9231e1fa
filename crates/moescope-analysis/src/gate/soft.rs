//! Times: noise, so statistics decide.

use super::evidence::{Evidence, Kind, TIMES};
use super::hard::percent;
use super::{Check, GateOptions, Named, Outcome};
use crate::bootstrap::MIN_UNITS;
use crate::stats::{
    Alternative, Ratio, adjust, mann_whitney, median, ratio_of, ratio_of_pairs, signed_rank,
};

/// Times of a base and a new measurement, nanoseconds per token, in the order they were taken.
#[derive(Clone)]
pub(super) enum Series {
    Independent { base: Vec<f64>, new: Vec<f64> },
    Pairs(Vec<(f64, f64)>),
}

/// A row and time that look worse.
pub(super) type Suspect = (String, &'static str);

impl Series {
    fn ratio(&self) -> Option<Ratio> {
        match self {
            Series::Independent { base, new } => ratio_of(base, new),
            Series::Pairs(pairs) => ratio_of_pairs(pairs),
        }
    }

    /// p of the new times being larger (`Greater`) or smaller.
    fn p(&self, alternative: Alternative) -> Option<f64> {
        let test = match self {
            Series::Independent { base, new } => mann_whitney(new, base, alternative),
            Series::Pairs(pairs) => {
                let logs: Vec<f64> = pairs.iter().map(|(base, new)| (new / base).ln()).collect();
                // All pairs equal: no test, and no difference.
                return Some(signed_rank(&logs, alternative).map_or(1.0, |test| test.p));
            }
        };
        test.map(|test| test.p)
    }

    fn medians(&self) -> (Option<f64>, Option<f64>) {
        let (mut base, mut new) = match self {
            Series::Independent { base, new } => (base.clone(), new.clone()),
            Series::Pairs(pairs) => pairs.iter().copied().unzip(),
        };
        (median(&mut base), median(&mut new))
    }

    /// Samples on the side that has fewer.
    fn samples(&self) -> usize {
        match self {
            Series::Independent { base, new } => base.len().min(new.len()),
            Series::Pairs(pairs) => pairs.len(),
        }
    }

    /// The earlier and the later half.
    fn halves(&self) -> [Series; 2] {
        let cut = |values: &[f64], later: bool| {
            let middle = values.len() / 2;
            if later { values[middle..].to_vec() } else { values[..middle].to_vec() }
        };
        [false, true].map(|later| match self {
            Series::Independent { base, new } => {
                Series::Independent { base: cut(base, later), new: cut(new, later) }
            }
            Series::Pairs(pairs) => {
                let middle = pairs.len() / 2;
                let half = if later { &pairs[middle..] } else { &pairs[..middle] };
                Series::Pairs(half.to_vec())
            }
        })
    }
}

/// Times that two measurements have in common. Those of runs are paired by sequence: both read the same
/// prompts.
pub(super) fn series(base: &Evidence, new: &Evidence) -> Vec<Named> {
    let mut found = Vec::new();
    for row in &base.rows {
        let Some(other) = new.row(&row.name) else { continue };
        for name in TIMES {
            let (Some(a), Some(b)) = (row.time(name), other.time(name)) else { continue };
            let series = match base.kind {
                Kind::Bench => {
                    let values = |samples: &[(Option<u32>, f64)]| {
                        samples.iter().map(|(_, ns)| *ns).collect::<Vec<_>>()
                    };
                    Series::Independent { base: values(&a.samples), new: values(&b.samples) }
                }
                Kind::Run => {
                    let of: std::collections::BTreeMap<_, _> = b.samples.iter().copied().collect();
                    let pairs = a.samples.iter().filter_map(|(id, ns)| Some((*ns, *of.get(id)?)));
                    Series::Pairs(pairs.collect())
                }
            };
            found.push((row.name.clone(), name, series));
        }
    }
    found
}

/// Times of measurements that were taken in pairs: the median of each, pair by pair.
pub(super) fn paired(pairs: &[(Evidence, Evidence)]) -> Vec<Named> {
    let middle = |evidence: &Evidence, row: &str, name: &str| {
        let samples = &evidence.row(row)?.time(name)?.samples;
        median(&mut samples.iter().map(|(_, ns)| *ns).collect::<Vec<_>>())
    };
    let Some((first, _)) = pairs.first() else { return Vec::new() };
    let mut found = Vec::new();
    for row in &first.rows {
        for name in TIMES {
            let both = pairs.iter().filter_map(|(base, new)| {
                Some((middle(base, &row.name, name)?, middle(new, &row.name, name)?))
            });
            let both: Vec<(f64, f64)> = both.collect();
            if !both.is_empty() {
                found.push((row.name.clone(), name, Series::Pairs(both)));
            }
        }
    }
    found
}

/// Whether more pairs are not needed: no interval is wider than its threshold, so that a slow-down of twice
/// the threshold stands out. Times without an interval do not get one by a few pairs more.
pub(super) fn are_narrow(series: &[Named], options: &GateOptions) -> bool {
    series.iter().all(|(_, name, times)| {
        let interval = times.ratio().and_then(|ratio| ratio.interval);
        interval.is_none_or(|(low, high)| high <= low * (1.0 + options.threshold_of(name)))
    })
}

/// The first look: a check for each time, those that look worse as [`Outcome::Regressed`], and which
/// these are.
pub(super) fn check(series: &[Named], options: &GateOptions) -> (Vec<Check>, Vec<Suspect>) {
    let p = |alternative| {
        let raw: Vec<f64> =
            series.iter().map(|(_, _, times)| times.p(alternative).unwrap_or(1.0)).collect();
        adjust(&raw)
    };
    let (worse, better) = (p(Alternative::Greater), p(Alternative::Less));
    let mut suspects = Vec::new();
    let checks = series.iter().enumerate().map(|(at, (row, name, times))| {
        let threshold = options.threshold_of(name);
        let (base, new) = times.medians();
        let text = |ns: Option<f64>| ns.map_or_else(String::new, duration);
        let ratio = times.ratio();
        let mut check = Check {
            row: row.clone(),
            metric: name,
            hard: false,
            base: text(base),
            new: text(new),
            ratio: ratio.map(|ratio| ratio.value),
            interval: ratio.and_then(|ratio| ratio.interval),
            p: Some(worse[at].min(better[at])),
            limit: format!("at most +{}", percent(threshold)),
            outcome: Outcome::Passed,
            note: None,
        };
        match check.interval {
            None => {
                check.outcome = Outcome::Undecided;
                let found = times.samples();
                check.note = Some(format!("{found} samples; at least {MIN_UNITS} are needed"));
            }
            Some((low, _)) if worse[at] <= options.significance && low > 1.0 + threshold => {
                check.outcome = Outcome::Regressed;
                suspects.push((row.clone(), *name));
            }
            Some((_, high))
                if better[at] <= options.significance && high < 1.0 / (1.0 + threshold) =>
            {
                check.outcome = Outcome::Improved;
            }
            Some((low, _)) => {
                check.note = check.ratio.and_then(|ratio| blindness(ratio / low, threshold));
            }
        }
        check
    });
    let checks = checks.collect();
    (checks, suspects)
}

/// What a passed time can't rule out, where that is more than twice the threshold: `reach` is how far the
/// interval reaches below the ratio, as a factor.
fn blindness(reach: f64, threshold: f64) -> Option<String> {
    let unseen = (1.0 + threshold) * reach - 1.0;
    (unseen > 2.0 * threshold)
        .then(|| format!("noisy: a slow-down of less than {:.0} % may pass", unseen * 100.0))
}

/// Which suspects a second measurement confirms, by the criteria of the first. The second look asks only
/// about the suspects, so the correction is over these.
pub(super) fn again(
    suspects: &[Suspect],
    series: &[Named],
    options: &GateOptions,
) -> Vec<(Suspect, String)> {
    let wanted = |named: &&Named| suspects.contains(&(named.0.clone(), named.1));
    let again: Vec<Named> = series.iter().filter(wanted).cloned().collect();
    let (checks, confirmed) = check(&again, options);
    let ratio = |(row, name): &Suspect| {
        let check = checks.iter().find(|check| check.row == *row && check.metric == *name);
        check.and_then(|check| check.ratio).map_or_else(String::new, |x| format!(" (x{x:.3})"))
    };
    confirmed
        .into_iter()
        .map(|suspect| {
            let note = format!("a second measurement agrees{}", ratio(&suspect));
            (suspect, note)
        })
        .collect()
}

/// Which suspects both halves of their samples confirm.
pub(super) fn halves(
    suspects: &[Suspect],
    series: &[Named],
    options: &GateOptions,
) -> Vec<(Suspect, String)> {
    let mut confirmed = Vec::new();
    for (row, name, times) in series {
        let suspect = (row.clone(), *name);
        if !suspects.contains(&suspect) {
            continue;
        }
        let beyond = 1.0 + options.threshold_of(name);
        let [early, late] = times.halves().map(|half| half.ratio().map_or(0.0, |r| r.value));
        if early > beyond && late > beyond {
            let note = format!("earlier and later samples agree (x{early:.3}, x{late:.3})");
            confirmed.push((suspect, note));
        }
    }
    confirmed
}

/// Turns suspects that were not confirmed into [`Outcome::Suspected`].
pub(super) fn confirm(checks: &mut [Check], confirmed: Vec<(Suspect, String)>) {
    for check in checks.iter_mut().filter(|check| check.outcome == Outcome::Regressed) {
        let found =
            confirmed.iter().find(|((row, name), _)| *row == check.row && *name == check.metric);
        match found {
            Some((_, note)) => check.note = Some(note.clone()),
            None => {
                check.outcome = Outcome::Suspected;
                check.note = Some("a second look did not agree".into());
            }
        }
    }
}

/// Nanoseconds per token with a fitting unit.
fn duration(ns: f64) -> String {
    match ns {
        x if x >= 1e9 => format!("{:.3} s", x / 1e9),
        x if x >= 1e6 => format!("{:.3} ms", x / 1e6),
        x if x >= 1e3 => format!("{:.2} µs", x / 1e3),
        x => format!("{x:.0} ns"),
    }
}
