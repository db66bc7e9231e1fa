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

/// What a second look says of a suspect: that it agrees, or why it does not.
pub(super) type Second = (Suspect, Result<String, String>);

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

    /// The smallest p that any samples of these numbers can reach: all new times larger than all of the base.
    fn least_p(&self) -> f64 {
        match self {
            Series::Independent { base, new } => one_of_orders(base.len(), new.len()),
            Series::Pairs(pairs) => one_of_signs(pairs.len()),
        }
    }

    /// Whether one time alone, however much slower, could not be found among `times`.
    fn is_blind(&self, times: usize, options: &GateOptions) -> bool {
        self.least_p() * times as f64 > options.significance
    }

    /// How many samples would be enough for that.
    fn needed(&self, times: usize, options: &GateOptions) -> String {
        match self {
            Series::Pairs(_) => format!("{} pairs", pairs_needed(times, options)),
            Series::Independent { .. } => {
                let least = |n| one_of_orders(n, n);
                format!("{} samples on each side", enough(least, times, options))
            }
        }
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

/// 1 / C(n + m, n): the share of one order among those of two samples.
fn one_of_orders(n: usize, m: usize) -> f64 {
    (1..=n).map(|i| i as f64 / (m + i) as f64).product()
}

/// 2^-n: the share of one pattern of signs among those of n pairs.
fn one_of_signs(pairs: usize) -> f64 {
    0.5f64.powf(pairs as f64)
}

/// Fewest samples for which the smallest p, `least`, is significant after Benjamini-Hochberg over `times` where
/// no other time is worse.
fn enough(least: impl Fn(usize) -> f64, times: usize, options: &GateOptions) -> usize {
    let mut samples = MIN_UNITS;
    while least(samples) * times as f64 > options.significance {
        samples += 1;
    }
    samples
}

/// Pairs that can show one time worse among `times`.
pub(super) fn pairs_needed(times: usize, options: &GateOptions) -> usize {
    enough(one_of_signs, times, options)
}

/// Times that have an interval and too few samples for a rank test to find one of them worse: in a sentence.
pub(super) fn blind(series: &[Named], options: &GateOptions) -> Option<String> {
    let times = series.len();
    let can = |series: &&Series| series.samples() >= MIN_UNITS && series.is_blind(times, options);
    let blind: Vec<&Series> = series.iter().map(|(_, _, times)| times).filter(can).collect();
    let worst = blind.iter().min_by_key(|series| series.samples())?;
    Some(format!(
        "{} samples can't show a single slow-down among {times} times, however large (smallest p after correction \
         {:.3}, allowed {}): that takes {}",
        worst.samples(),
        (worst.least_p() * times as f64).min(1.0),
        options.significance,
        worst.needed(times, options),
    ))
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
            Some((low, _)) if low > 1.0 + threshold => {
                if worse[at] <= options.significance {
                    check.outcome = Outcome::Regressed;
                    suspects.push((row.clone(), *name));
                } else {
                    check.outcome = Outcome::Undecided;
                    check.note = Some(match times.is_blind(series.len(), options) {
                        true => format!(
                            "looks worse, and {} samples can't show it among {} times: that takes {}",
                            times.samples(),
                            series.len(),
                            times.needed(series.len(), options)
                        ),
                        false => format!(
                            "looks worse, and the rank test is not sure (p {:.3}): measure more",
                            worse[at]
                        ),
                    });
                }
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

/// What a second measurement says of the suspects, by the criteria of the first. The second look asks only
/// about the suspects, so the correction is over these.
pub(super) fn again(suspects: &[Suspect], series: &[Named], options: &GateOptions) -> Vec<Second> {
    let wanted = |named: &&Named| suspects.contains(&(named.0.clone(), named.1));
    let again: Vec<Named> = series.iter().filter(wanted).cloned().collect();
    let (checks, _) = check(&again, options);
    let said = checks.into_iter().map(|check| {
        let ratio = check.ratio.map_or_else(String::new, |x| format!(" (x{x:.3})"));
        let second = match (check.outcome, check.note) {
            (Outcome::Regressed, _) => Ok(format!("a second measurement agrees{ratio}")),
            (Outcome::Undecided, Some(why)) => Err(format!("a second look could not tell: {why}")),
            _ => Err(format!("a second measurement does not agree{ratio}")),
        };
        ((check.row, check.metric), second)
    });
    said.collect()
}

/// What both halves of their samples say of the suspects.
pub(super) fn halves(suspects: &[Suspect], series: &[Named], options: &GateOptions) -> Vec<Second> {
    let mut said = Vec::new();
    for (row, name, times) in series {
        let suspect = (row.clone(), *name);
        if !suspects.contains(&suspect) {
            continue;
        }
        let beyond = 1.0 + options.threshold_of(name);
        let [early, late] = times.halves().map(|half| half.ratio().map_or(0.0, |r| r.value));
        let agree = early > beyond && late > beyond;
        let ratios = format!("(x{early:.3}, x{late:.3})");
        said.push((
            suspect,
            match agree {
                true => Ok(format!("earlier and later samples agree {ratios}")),
                false => Err(format!("earlier and later samples do not agree {ratios}")),
            },
        ));
    }
    said
}

/// Turns suspects that were not confirmed into [`Outcome::Suspected`].
pub(super) fn confirm(checks: &mut [Check], said: Vec<Second>) {
    for check in checks.iter_mut().filter(|check| check.outcome == Outcome::Regressed) {
        let second =
            said.iter().find(|((row, name), _)| *row == check.row && *name == check.metric);
        let second = second.map(|(_, said)| said.clone());
        match second.unwrap_or_else(|| Err("a second look did not measure it".into())) {
            Ok(note) => check.note = Some(note),
            Err(note) => {
                check.outcome = Outcome::Suspected;
                check.note = Some(note);
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
