//! Figures of a history: one per metric, a panel for each row, changes and their commits marked.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use moescope_analysis::history::{Point, Trend};
use moescope_trace::fingerprint::DIRTY;

use crate::canvas::{
    Align, Axis, Canvas, Key, LABEL, Marker, Panel, SMALL, fit, lay_out, legend, text_width,
    to_png, to_svg_file,
};
use crate::error::ReportError;
use crate::figures::WIDE;
use crate::format::significant;
use crate::palette::{Ink, dark_css};
use crate::sanitize::sanitize;

/// Characters of a commit that tell it from others.
const COMMIT: usize = 8;
/// Panels on one page of a figure.
const PANELS: usize = 12;
/// Lines above the data for the names of commits that changed something.
const LANES: usize = 3;
const LANE: f64 = 14.0;

/// Writes one figure per metric, `trend-METRIC.svg` and `.png` in a directory, a panel for each row and
/// conditions; further pages are `trend-METRIC-2.svg` and so on. Of the values, marks are single measurements,
/// bars their quartiles, horizontal lines the levels between changes; a dashed line is a change, with its commit
/// and how much the level moved. Returns the files.
///
/// # Errors
///
/// [`ReportError::NoRuns`] without a trend, [`ReportError::Write`] and [`ReportError::Draw`].
pub fn draw_trends(trends: &[Trend], directory: &Path) -> Result<Vec<PathBuf>, ReportError> {
    if trends.is_empty() {
        return Err(ReportError::NoRuns);
    }
    fs::create_dir_all(directory)
        .map_err(|source| ReportError::Write { path: directory.into(), source })?;
    let failed = |message| ReportError::Draw { figure: "trend", message };
    let style = format!("@media(prefers-color-scheme:dark){{{}}}", dark_css());
    let (mut paths, mut taken) = (Vec::new(), HashSet::new());
    for (metric, of_metric) in by_metric(trends) {
        let pages = of_metric.len().div_ceil(PANELS);
        for (number, page) in of_metric.chunks(PANELS).enumerate() {
            let name = file_name(metric, number, &mut taken);
            let draw = |canvas: &Canvas<'_>| draw(canvas, page, (number + 1, pages));
            let svg = to_svg_file(WIDE, &style, draw).map_err(failed)?;
            let [svg_path, png_path] =
                ["svg", "png"].map(|form| directory.join(format!("{name}.{form}")));
            fs::write(&svg_path, svg)
                .map_err(|source| ReportError::Write { path: svg_path.clone(), source })?;
            to_png(&png_path, WIDE, draw).map_err(failed)?;
            paths.extend([svg_path, png_path]);
        }
    }
    Ok(paths)
}

/// Trends by metric, both in order of first appearance.
fn by_metric(trends: &[Trend]) -> Vec<(&str, Vec<&Trend>)> {
    let mut metrics: Vec<(&str, Vec<&Trend>)> = Vec::new();
    for trend in trends {
        match metrics.iter_mut().find(|(metric, _)| *metric == trend.metric) {
            Some((_, found)) => found.push(trend),
            None => metrics.push((&trend.metric, vec![trend])),
        }
    }
    metrics
}

/// A name that no other page has. Metrics may come from elsewhere: only letters, digits and `_` make it into it.
fn file_name(metric: &str, page: usize, taken: &mut HashSet<String>) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let mut name = format!("trend-{}", metric.chars().take(60).map(keep).collect::<String>());
    if page > 0 {
        name.push_str(&format!("-{}", page + 1));
    }
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

/// Bytes in a unit that leaves few digits, other units as they are: the unit and how many of the given are one.
fn unit_of(trends: &[&Trend]) -> (String, f64) {
    let unit = trends.first().map_or("", |trend| trend.unit.as_str());
    let values = trends.iter().flat_map(|trend| &trend.points).map(|point| point.value);
    let most = values.fold(0.0, f64::max);
    let binary =
        [("GiB", 30), ("MiB", 20), ("KiB", 10)].map(|(name, bits)| (name, f64::from(1 << bits)));
    match binary.into_iter().find(|(_, bytes)| unit == "bytes" && most >= *bytes) {
        Some((name, bytes)) => (name.to_owned(), bytes),
        None => (sanitize(unit).into_owned(), 1.0),
    }
}

/// One page; `page` is its number and how many there are.
fn draw(canvas: &Canvas<'_>, trends: &[&Trend], (page, pages): (usize, usize)) -> f64 {
    let (unit, scale) = unit_of(trends);
    let metric = trends.first().map_or("", |trend| trend.metric.as_str());
    let of_pages = if pages > 1 { format!(", page {page} of {pages}") } else { String::new() };
    let title = fit(&format!("{} over commits{of_pages}", sanitize(metric)), LABEL, WIDE);
    canvas.strong(0.0, 14.0, &title, LABEL, Ink::Text);
    let mut keys = vec![
        (Key::Mark(Marker::Circle, Ink::series(0)), "measurement, with quartiles".to_owned()),
        (Key::Line(Ink::series(1)), "level".to_owned()),
    ];
    if trends.iter().any(|trend| !trend.changes.is_empty()) {
        keys.push((Key::Reference, "change, with its commit".to_owned()));
    }
    let top = 26.0 + legend(canvas, 26.0, &keys) + 12.0;
    let conditions: BTreeSet<&str> = trends.iter().map(|t| t.conditions.as_str()).collect();
    let number = |of: &str| conditions.iter().position(|c| *c == of).map_or(0, |at| at + 1);
    let (places, height) = lay_out(canvas, top, trends.len(), 380.0, 240.0);
    for (trend, place) in trends.iter().zip(places) {
        let title = match conditions.len() {
            1 => sanitize(&trend.row).into_owned(),
            _ => format!("{} (conditions {})", sanitize(&trend.row), number(&trend.conditions)),
        };
        let x_axis = commits(&trend.points, place.w);
        let panel = Panel::draw(canvas, place, &title, &x_axis, &values(trend, &unit, scale));
        levels(canvas, &panel, trend, scale);
        for (at, point) in trend.points.iter().enumerate() {
            let x = panel.x.at(at as f64);
            if let Some((low, high)) = point.quartiles {
                let ends = [low, high].map(|end| (x, panel.y.at(end / scale)));
                canvas.line(&ends, Ink::series(0), 1.4);
            }
            canvas.marker(x, panel.y.at(point.value / scale), 6.0, Marker::Circle, Ink::series(0));
        }
        changes(canvas, &panel, trend, place.x + place.w);
    }
    let mut y = top + height + 8.0;
    for (at, conditions) in conditions.iter().enumerate() {
        for line in lines_of(&format!("conditions {}: {}", at + 1, sanitize(conditions)), WIDE) {
            canvas.text(0.0, y + 10.0, &line, SMALL, Ink::Text, Align::Left);
            y += 15.0;
        }
    }
    y
}

/// The axis of the values, with room above for the names of commits.
fn values(trend: &Trend, unit: &str, scale: f64) -> Axis {
    let spread = trend.points.iter().flat_map(|point| {
        let (low, high) = point.quartiles.unwrap_or((point.value, point.value));
        [low, high, point.value].map(|value| value / scale)
    });
    let (low, high) =
        spread.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    // A constant series gets an axis too.
    let range = (high - low).max(high.abs() * 0.02);
    let above = if trend.changes.is_empty() { 0.15 } else { 0.15 * LANES as f64 };
    let mut axis = Axis::linear(unit, low - 0.15 * range, high + above * range, 5);
    if low >= 0.0 {
        axis.low = axis.low.max(0.0);
        axis.ticks.retain(|(value, _)| *value >= 0.0);
    }
    axis
}

/// The axis of measurements: each commit where it first was measured, as many as have room.
fn commits(points: &[Point], width: f64) -> Axis {
    let mut ticks: Vec<(f64, String)> = Vec::new();
    let mut before = None;
    for (at, point) in points.iter().enumerate() {
        if before != Some(&point.commit) {
            ticks.push((at as f64, short(point.commit.as_deref())));
            before = Some(&point.commit);
        }
    }
    let widest = ticks.iter().map(|(_, label)| text_width(label, SMALL)).fold(1.0, f64::max);
    // Some 70 go to the labels of the other axis.
    let fitting = ((width - 70.0) / (widest + 10.0)).max(1.0);
    let every = (ticks.len() as f64 / fitting).ceil().max(1.0) as usize;
    let changed = points.iter().any(|p| p.commit.as_ref().is_some_and(|c| c.ends_with(DIRTY)));
    let title = match changed {
        true => "commit, oldest first (*: the tree had other changes)",
        false => "commit, oldest first",
    };
    Axis {
        low: -0.5,
        high: points.len() as f64 - 0.5,
        log: false,
        ticks: ticks.into_iter().step_by(every).collect(),
        title: title.into(),
    }
}

/// A commit as a label.
fn short(commit: Option<&str>) -> String {
    let commit = commit.unwrap_or("?");
    let (commit, mark) = match commit.strip_suffix(DIRTY) {
        Some(commit) => (commit, "*"),
        None => (commit, ""),
    };
    sanitize(commit).chars().take(COMMIT).collect::<String>() + mark
}

/// A dashed line at each change; its label stands on the first line that is free there, or is left out.
fn changes(canvas: &Canvas<'_>, panel: &Panel, trend: &Trend, right: f64) {
    let mut free_from = [f64::NEG_INFINITY; LANES];
    for change in &trend.changes {
        // Between the last value before and the first one after.
        let x = panel.x.at(change.index as f64 - 0.5);
        canvas.dashed(&[(x, panel.y.from), (x, panel.y.to)], Ink::Reference, 1.4);
        let commit = short(trend.points[change.index].commit.as_deref());
        let label = format!("{commit} x{}", significant(trend.ratio(change), 3));
        let width = text_width(&label, SMALL);
        let left = if x + 4.0 + width > right { x - 4.0 - width } else { x + 4.0 };
        let lane = (0..LANES).find(|&lane| free_from[lane] <= left);
        if let Some(lane) = lane {
            let y = panel.y.to + 12.0 + LANE * lane as f64;
            canvas.text(left, y, &label, SMALL, Ink::Text, Align::Left);
            free_from[lane] = left + width + 6.0;
        }
    }
}

/// A text of `; `-separated parts in lines of a width.
fn lines_of(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split("; ") {
        match lines.last_mut() {
            Some(line) if text_width(line, SMALL) + text_width(part, SMALL) + 12.0 < width => {
                line.push_str("; ");
                line.push_str(part);
            }
            _ => lines.push(fit(part, SMALL, width)),
        }
    }
    lines
}

/// A line at the mean of each stretch between changes.
fn levels(canvas: &Canvas<'_>, panel: &Panel, trend: &Trend, scale: f64) {
    let mut start = 0;
    let ends = trend.changes.iter().map(|change| change.index).chain([trend.points.len()]);
    for end in ends {
        if end > start {
            let y = panel.y.at(trend.level(start) / scale);
            let ends = [start as f64 - 0.4, end as f64 - 0.6].map(|at| (panel.x.at(at), y));
            canvas.line(&ends, Ink::series(1), 2.2);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moescope_analysis::stats::Change;

    fn trend(metric: &str, row: &str, unit: &str) -> Trend {
        let point = |at: usize| Point {
            measured_at: format!("2026-07-{at:02}"),
            commit: Some(format!("{at:02}<script>&\u{1b}[31m")),
            value: if at < 6 { 100.0 } else { 80.0 },
            quartiles: Some((75.0, 105.0)),
        };
        Trend {
            row: row.into(),
            metric: metric.into(),
            unit: unit.into(),
            conditions: "device=<cpu>; ".to_owned() + &"driver=1; ".repeat(40),
            points: (0..12).map(point).collect(),
            changes: vec![Change { index: 6, divergence: 1.0, p: 0.002 }],
        }
    }

    #[test]
    fn changes_stand_in_the_figure_with_their_commits() {
        let directory = tempfile::tempdir().unwrap();
        let of = trend("decode", "text pp8 <b1>", "tokens/s");
        let paths = draw_trends(&[of], directory.path()).unwrap();
        assert_eq!(
            paths,
            ["trend-decode.svg", "trend-decode.png"].map(|name| directory.path().join(name))
        );
        let text = fs::read_to_string(&paths[0]).unwrap();
        assert!(text.contains("x0.800") && text.contains("06&lt;scrip"), "{text}");
        assert!(text.contains("conditions 1: device=&lt;cpu&gt;"), "{text}");
        assert!(!text.contains("<script") && !text.contains('\u{1b}'));
        for event in xml::reader::EventReader::from_str(&text) {
            event.unwrap();
        }
        assert!(fs::metadata(&paths[1]).unwrap().len() > 1000);
        assert!(draw_trends(&[], directory.path()).is_err());
    }

    /// A figure per metric, all rows in it, on pages where they are many; no name leads out of the directory.
    #[test]
    fn every_metric_has_its_figure() {
        let directory = tempfile::tempdir().unwrap();
        let row = |at: usize| format!("row {at} of all");
        let many = (0..PANELS + 2).map(|at| trend("peak_bytes", &row(at), "bytes"));
        let mut all: Vec<Trend> = many.collect();
        all.insert(1, trend("../x", "one", "tokens/s"));
        all.push(trend("..-x", "one", "tokens/s"));
        all.iter_mut().for_each(|trend| trend.points.iter_mut().for_each(|p| p.value *= 2e6));
        let names: Vec<String> = draw_trends(&all, directory.path())
            .unwrap()
            .iter()
            .filter(|path| path.extension().is_some_and(|form| form == "svg"))
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        let want =
            ["trend-peak_bytes.svg", "trend-peak_bytes-2.svg", "trend----x.svg", "trend----x_.svg"];
        assert_eq!(names, want);
        let pages = want.map(|name| fs::read_to_string(directory.path().join(name)).unwrap());
        assert!(pages[0].contains(&row(PANELS - 1)) && !pages[0].contains(&row(PANELS)));
        assert!(pages[1].contains(&row(PANELS)) && pages[1].contains("page 2 of 2"));
        assert!(pages[0].contains("MiB") && pages[2].contains("tokens/s"), "units");
    }

    /// Labels of commits never overlap; a commit measured again is labelled once.
    #[test]
    fn commits_are_thinned() {
        let point = |at: usize| Point {
            measured_at: String::new(),
            commit: Some(format!("{:012x}", at / 2)),
            value: 1.0,
            quartiles: None,
        };
        let points: Vec<Point> = (0..100).map(point).collect();
        let axis = commits(&points, 400.0);
        assert!((2..=5).contains(&axis.ticks.len()), "{:?}", axis.ticks);
        let few = commits(&points[..6], 400.0);
        let places: Vec<f64> = few.ticks.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [0.0, 2.0, 4.0]);
        assert_eq!(few.ticks[1].1, "00000000");
        assert_eq!(short(Some("0123456789ab-dirty")), "01234567*");
        assert_eq!(short(None), "?");
    }
}
