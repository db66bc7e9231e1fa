//! The figure of a history: one panel per trend, changes and their commits marked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use moescope_analysis::history::Trend;

use crate::canvas::{
    Align, Axis, Canvas, Key, Marker, Panel, SMALL, fit, lay_out, legend, text_width, to_png,
    to_svg_file,
};
use crate::error::ReportError;
use crate::figures::WIDE;
use crate::format::significant;
use crate::palette::{Ink, dark_css};
use crate::sanitize::sanitize;

/// Characters of a commit that tell it from others.
const COMMIT: usize = 8;

/// Writes the trends as one figure, `trend.svg` and `trend.png` in a directory. Of the values, marks are
/// single measurements, bars their quartiles, horizontal lines the levels between changes; a dashed
/// line is a change, with its commit and how much the level moved.
///
/// # Errors
///
/// [`ReportError::NoRuns`] without a trend, [`ReportError::Write`] and [`ReportError::Draw`].
pub fn draw_trends(trends: &[Trend], directory: &Path) -> Result<[PathBuf; 2], ReportError> {
    if trends.is_empty() {
        return Err(ReportError::NoRuns);
    }
    fs::create_dir_all(directory)
        .map_err(|source| ReportError::Write { path: directory.into(), source })?;
    let failed = |message| ReportError::Draw { figure: "trend", message };
    let style = format!("@media(prefers-color-scheme:dark){{{}}}", dark_css());
    let svg = to_svg_file(WIDE, &style, |canvas| draw(canvas, trends)).map_err(failed)?;
    let [svg_path, png_path] = ["trend.svg", "trend.png"].map(|name| directory.join(name));
    fs::write(&svg_path, svg)
        .map_err(|source| ReportError::Write { path: svg_path.clone(), source })?;
    to_png(&png_path, WIDE, |canvas| draw(canvas, trends)).map_err(failed)?;
    Ok([svg_path, png_path])
}

fn draw(canvas: &Canvas<'_>, trends: &[Trend]) -> f64 {
    let keys = [
        (Key::Mark(Marker::Circle, Ink::series(0)), "measurement, with quartiles".to_owned()),
        (Key::Line(Ink::series(1)), "level".to_owned()),
        (Key::Reference, "change, with its commit".to_owned()),
    ];
    let top = legend(canvas, 0.0, &keys) + 12.0;
    let conditions: BTreeSet<&str> = trends.iter().map(|t| t.conditions.as_str()).collect();
    let number = |of: &str| conditions.iter().position(|c| *c == of).map_or(0, |at| at + 1);
    let (places, height) = lay_out(canvas, top, trends.len(), 380.0, 240.0);
    for (trend, place) in trends.iter().zip(places) {
        let spread = trend.points.iter().flat_map(|point| {
            let (low, high) = point.quartiles.unwrap_or((point.value, point.value));
            [low, high, point.value]
        });
        let (low, high) = spread
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        // Room above for the names of commits; a constant series gets an axis too.
        let air = (high - low).max(high.abs() * 0.02) * 0.15;
        let title = format!("{} ({})", sanitize(&trend.metric), sanitize(&trend.unit));
        let mut y_axis = Axis::linear(&title, low - air, high + 2.0 * air, 5);
        if low >= 0.0 {
            y_axis.low = y_axis.low.max(0.0);
            y_axis.ticks.retain(|(value, _)| *value >= 0.0);
        }
        let last = trend.points.len().saturating_sub(1) as u32;
        let x_axis = Axis::whole("measurement, oldest first", 0, last, (place.w / 50.0) as usize);
        let title = match conditions.len() {
            1 => sanitize(&trend.row).into_owned(),
            _ => format!("{} (conditions {})", sanitize(&trend.row), number(&trend.conditions)),
        };
        let panel = Panel::draw(canvas, place, &title, &x_axis, &y_axis);
        levels(canvas, &panel, trend);
        for (at, point) in trend.points.iter().enumerate() {
            let x = panel.x.at(at as f64);
            if let Some((low, high)) = point.quartiles {
                canvas.line(&[(x, panel.y.at(low)), (x, panel.y.at(high))], Ink::series(0), 1.4);
            }
            canvas.marker(x, panel.y.at(point.value), 6.0, Marker::Circle, Ink::series(0));
        }
        for (number, change) in trend.changes.iter().enumerate() {
            // Between the last value before and the first one after.
            let x = panel.x.at(change.index as f64 - 0.5);
            canvas.dashed(&[(x, panel.y.from), (x, panel.y.to)], Ink::Reference, 1.4);
            let commit = trend.points[change.index].commit.as_deref().unwrap_or("?");
            let commit: String = sanitize(commit).chars().take(COMMIT).collect();
            let label = format!("{commit} x{}", significant(trend.ratio(change), 3));
            // Neighbouring labels stand on two lines.
            let y = panel.y.to + 12.0 + 14.0 * (number % 2) as f64;
            let label = fit(&label, SMALL, place.w);
            let (x, align) = match x + 4.0 + text_width(&label, SMALL) > place.x + place.w {
                true => (x - 4.0, Align::Right),
                false => (x + 4.0, Align::Left),
            };
            canvas.text(x, y, &label, SMALL, Ink::Text, align);
        }
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
fn levels(canvas: &Canvas<'_>, panel: &Panel, trend: &Trend) {
    let mut start = 0;
    let ends = trend.changes.iter().map(|change| change.index).chain([trend.points.len()]);
    for end in ends {
        if end > start {
            let y = panel.y.at(trend.level(start));
            let ends = [start as f64 - 0.4, end as f64 - 0.6].map(|at| (panel.x.at(at), y));
            canvas.line(&ends, Ink::series(1), 2.2);
        }
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moescope_analysis::history::Point;
    use moescope_analysis::stats::Change;

    #[test]
    fn changes_stand_in_the_figure_with_their_commits() {
        let point = |at: usize| Point {
            measured_at: format!("2026-07-{at:02}"),
            commit: Some(format!("{at:02}<script>&\u{1b}[31m")),
            value: if at < 6 { 100.0 } else { 80.0 },
            quartiles: Some((75.0, 105.0)),
        };
        let trend = Trend {
            row: "text pp8 <b1>".into(),
            metric: "decode".into(),
            unit: "tokens/s".into(),
            conditions: "device=<cpu>; ".to_owned() + &"driver=1; ".repeat(40),
            points: (0..12).map(point).collect(),
            changes: vec![Change { index: 6, divergence: 1.0, p: 0.002 }],
        };
        let directory = tempfile::tempdir().unwrap();
        let [svg, png] = draw_trends(&[trend], directory.path()).unwrap();
        let text = fs::read_to_string(svg).unwrap();
        assert!(text.contains("x0.800") && text.contains("06&lt;scrip"), "{text}");
        assert!(text.contains("conditions 1: device=&lt;cpu&gt;"), "{text}");
        assert!(!text.contains("<script") && !text.contains('\u{1b}'));
        for event in xml::reader::EventReader::from_str(&text) {
            event.unwrap();
        }
        assert!(fs::metadata(png).unwrap().len() > 1000);
        assert!(draw_trends(&[], directory.path()).is_err());
    }
}
