//! What is deterministic: any difference beyond a tight limit counts.

use moescope_trace::bench::Facts;

use super::evidence::{Evidence, Row};
use super::{Check, GateOptions, Outcome};
use crate::compare::{TokenWise, compare};
use crate::options::Options;

/// Checks the facts of all rows that both have. `others` are further measurements of the same two: a
/// fact that differs between those of one side is not deterministic and decides nothing; of peaks of memory
/// the highest of each side count.
pub(super) fn check(
    base: &Evidence,
    new: &Evidence,
    others: &[(Evidence, Evidence)],
    options: &GateOptions,
) -> Vec<Check> {
    let mut checks = Vec::new();
    for row in &base.rows {
        let Some(other) = new.row(&row.name) else { continue };
        let again = others
            .iter()
            .filter_map(|(base, new)| Some((base.row(&row.name)?, new.row(&row.name)?)));
        let again: Vec<(&Row, &Row)> = again.collect();
        let (mut row, mut other) = (row.clone(), other.clone());
        for (a, b) in &again {
            row.facts.raise_peaks(&a.facts);
            other.facts.raise_peaks(&b.facts);
        }
        let (row, other) = (&row, &other);
        let mut found = of_row(base, new, row, other, options);
        for check in &mut found {
            let base_varies =
                again.iter().any(|(a, _)| differs(check.metric, &row.facts, &a.facts));
            let new_varies =
                again.iter().any(|(_, b)| differs(check.metric, &other.facts, &b.facts));
            // What becomes random is a change, where the base shows that it need not be.
            let results = matches!(check.metric, "tokens" | "routing");
            if new_varies && !base_varies && results {
                check.outcome = Outcome::Regressed;
                check.note =
                    Some("always the same in the base, it varies between runs of the new".into());
            } else if base_varies || new_varies {
                check.outcome = Outcome::Undecided;
                check.note = Some("it varies between runs of the same command".into());
            }
        }
        let all = || std::iter::once((row, other)).chain(again.iter().copied());
        let base_error = all().find_map(|(a, _)| a.error.as_deref());
        let new_error = all().find_map(|(_, b)| b.error.as_deref());
        found.splice(0..0, completed(row, base_error, new_error));
        checks.extend(found.into_iter().filter(|check| options.checks(check.metric)));
    }
    checks
}

/// Whether a fact that has to be the same every time is not.
fn differs(fact: &str, a: &Facts, b: &Facts) -> bool {
    match fact {
        "tokens" => a.tokens_hash != b.tokens_hash,
        "routing" => a.routing_hash != b.routing_hash,
        "balance" => a.load_variation != b.load_variation,
        "bytes_per_token" => a.bytes_per_token != b.bytes_per_token,
        PROMPT_BYTES => prompt_bytes(a) != prompt_bytes(b),
        "dispatches" => a.dispatches != b.dispatches,
        _ => false,
    }
}

/// Bytes that the prompt's pass has to read per token, among [`Facts::other`]: its name there and as a check.
pub(crate) const PROMPT_BYTES: &str = "prefill_bytes_per_token";

/// The number of that name.
pub(crate) fn prompt_bytes(facts: &Facts) -> Option<f64> {
    facts.other.get(PROMPT_BYTES).copied()
}

/// Facts that neither side has, and that are therefore not checked: in a sentence.
pub(super) fn not_recorded(
    base: &Evidence,
    new: &Evidence,
    options: &GateOptions,
) -> Option<String> {
    type Has = fn(&Row) -> bool;
    // What has to do with a phase is missed only where there is one.
    let without: [(&str, Has); 7] = [
        ("tokens", |row| row.facts.tokens_hash.is_some()),
        ("routing", |row| row.facts.routing_hash.is_some()),
        ("balance", |row| row.facts.load_variation.is_some()),
        ("peak_bytes", |row| row.facts.peak_bytes_in_use.is_some()),
        ("bytes_per_token", |row| {
            row.facts.bytes_per_token.is_some() || row.time("decode").is_none()
        }),
        (PROMPT_BYTES, |row| prompt_bytes(&row.facts).is_some() || row.time("prefill").is_none()),
        ("dispatches", |row| row.facts.dispatches.is_some()),
    ];
    let both: Vec<(&Row, &Row)> =
        base.rows.iter().filter_map(|row| Some((row, new.row(&row.name)?))).collect();
    let missed = without.iter().filter(|(fact, _)| options.checks(fact)).filter_map(
        |(fact, has)| match both.iter().filter(|(a, b)| !has(a) && !has(b)).count() {
            0 => None,
            rows if rows == both.len() => Some((*fact).to_owned()),
            rows => Some(format!("{fact} (in {rows} of {} rows)", both.len())),
        },
    );
    let missed: Vec<String> = missed.collect();
    (!missed.is_empty())
        .then(|| format!("{ABSENT} on either side, so not checked: {}", missed.join(", ")))
}

/// Whether both came to their end; nothing to say where they did.
fn completed(row: &Row, base: Option<&str>, new: Option<&str>) -> Option<Check> {
    let outcome = match (base, new) {
        (None, None) => return None,
        (None, Some(_)) => Outcome::Regressed,
        (Some(_), None) => Outcome::Improved,
        (Some(_), Some(_)) => Outcome::Undecided,
    };
    let state = |error: Option<&str>| error.unwrap_or("completed").to_owned();
    Some(Check { outcome, ..blank(row, "completed", state(base), state(new), "as the base") })
}

fn of_row(
    base: &Evidence,
    new: &Evidence,
    row: &Row,
    other: &Row,
    options: &GateOptions,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let (a, b, limits) = (&row.facts, &other.facts, &options.limits);
    checks.extend(equal(row, "tokens", &a.tokens_hash, &b.tokens_hash));
    checks.extend(equal(row, "routing", &a.routing_hash, &b.routing_hash).map(|check| {
        // Runs keep every decision: how much of them agrees can be said.
        match check.outcome == Outcome::Regressed {
            true => overlap(check, base, new, limits.routing_overlap),
            false => check,
        }
    }));
    let plain = |x: f64| format!("{x:.4}");
    let bytes = |x: f64| format!("{x:.0} B");
    let (variation, other_variation) = (a.load_variation, b.load_variation);
    let balance = growth(row, "balance", variation, other_variation, limits.balance, plain);
    // Loads that became more even are another routing all the same.
    checks.extend(balance.map(|mut check| {
        if check.outcome == Outcome::Improved {
            check.outcome = Outcome::Regressed;
        }
        check.limit = format!("within {}", percent(limits.balance));
        check
    }));
    let wide = |x: Option<u64>| x.map(|x| x as f64);
    let (in_use, other_in_use) = (wide(a.peak_bytes_in_use), wide(b.peak_bytes_in_use));
    checks.extend(growth(row, "peak_bytes", in_use, other_in_use, limits.peak_bytes, bytes));
    let (read, other_read) = (a.bytes_per_token, b.bytes_per_token);
    checks.extend(growth(row, "bytes_per_token", read, other_read, limits.bytes_per_token, bytes));
    let (read, other_read) = (prompt_bytes(a), prompt_bytes(b));
    checks.extend(growth(row, PROMPT_BYTES, read, other_read, limits.bytes_per_token, bytes));
    checks.extend(growth(row, "dispatches", a.dispatches, b.dispatches, limits.dispatches, |x| {
        format!("{x:.0}")
    }));
    checks
}

fn blank(row: &Row, metric: &'static str, base: String, new: String, limit: &str) -> Check {
    Check {
        row: row.name.clone(),
        metric,
        hard: true,
        base,
        new,
        ratio: None,
        interval: None,
        p: None,
        limit: limit.to_owned(),
        outcome: Outcome::Passed,
        note: None,
    }
}

const ABSENT: &str = "not recorded";
const ONE_SIDED: &str = "recorded on one side only, so nothing was checked";

/// A hash that has to be the same; `None` where neither side has it.
fn equal(
    row: &Row,
    metric: &'static str,
    base: &Option<String>,
    new: &Option<String>,
) -> Option<Check> {
    if base.is_none() && new.is_none() {
        return None;
    }
    let short = |hash: &Option<String>| match hash {
        Some(hash) => hash.chars().take(12).collect(),
        None => ABSENT.to_owned(),
    };
    let mut check = blank(row, metric, short(base), short(new), "equal");
    check.outcome = match (base, new) {
        (Some(a), Some(b)) if a == b => Outcome::Passed,
        (Some(_), Some(_)) => Outcome::Regressed,
        _ => Outcome::Undecided,
    };
    if check.outcome == Outcome::Undecided {
        check.note = Some(ONE_SIDED.into());
    }
    Some(check)
}

/// The routing of two runs that is not equal: how much of it is.
fn overlap(mut check: Check, base: &Evidence, new: &Evidence, least: f64) -> Check {
    let (Some(a), Some(b)) = (&base.run, &new.run) else { return check };
    let comparison = compare(a, b, &Options { resamples: 0, ..Options::default() });
    match (
        comparison.token_wise,
        comparison.rows.iter().find(|r| r.metric == "routing_overlap" && r.layer.is_none()),
    ) {
        (TokenWise::Compared { tokens, .. }, Some(row)) => {
            check.new = format!("overlap {:.4}", row.value);
            check.limit = format!("overlap of at least {least}");
            check.note = Some(format!("over {tokens} tokens that both read"));
            if row.value >= least {
                check.outcome = Outcome::Passed;
            }
        }
        (TokenWise::Refused(refusal), _) => check.note = Some(refusal.to_string()),
        _ => {}
    }
    check
}

/// A number that may grow by a share; `None` where neither side has it.
fn growth(
    row: &Row,
    metric: &'static str,
    base: Option<f64>,
    new: Option<f64>,
    limit: f64,
    show: impl Fn(f64) -> String,
) -> Option<Check> {
    if base.is_none() && new.is_none() {
        return None;
    }
    let text = |x: Option<f64>| x.map_or_else(|| ABSENT.to_owned(), &show);
    let limit_text = format!("at most +{}", percent(limit));
    let mut check = blank(row, metric, text(base), text(new), &limit_text);
    let (Some(base), Some(new)) = (base, new) else {
        check.outcome = Outcome::Undecided;
        check.note = Some(ONE_SIDED.into());
        return Some(check);
    };
    check.ratio = (base > 0.0).then(|| new / base);
    // Sums of floating-point numbers in another order differ in their last bits.
    let slack = base.abs() * 1e-9;
    check.outcome = if new > base * (1.0 + limit) + slack {
        Outcome::Regressed
    } else if new < base * (1.0 - limit) - slack {
        Outcome::Improved
    } else {
        Outcome::Passed
    };
    Some(check)
}

/// A share in percent, no digits that say nothing.
pub(super) fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
