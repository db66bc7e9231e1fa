//! A result as aligned columns.

use moescope_report::sanitize;
use moescope_trace::bench::BenchRow;

use super::{
    Printed,
    columns::{Table, cells},
    conditions,
    summary::{self, Summary},
};
use crate::ui;

pub(super) fn render(printed: &Printed<'_>) -> String {
    let result = printed.result;
    let rows: Vec<(&BenchRow, Summary)> =
        result.rows.iter().map(|row| (row, Summary::of(row, printed))).collect();
    let mut text: String =
        head(printed).iter().map(|(label, value)| format!("{label:<10} {value}\n")).collect();
    for table in [Table::Speed, Table::Facts] {
        let (header, lines) = cells(table, &rows);
        // The name alone says nothing.
        if header.len() > 1 {
            text.push('\n');
            text.push_str(&ui::table(&header, &lines));
        }
    }
    let failed: Vec<_> = result.rows.iter().filter(|row| row.error.is_some()).collect();
    if !failed.is_empty() {
        text.push('\n');
    }
    for row in failed {
        let error = row.error.as_deref().unwrap_or_default();
        text.push_str(&format!("{}: {}\n", summary::test(&row.configuration), sanitize(error)));
    }
    text
}

/// What was measured on what: labels first, they say what the numbers are worth.
pub(super) fn head(printed: &Printed<'_>) -> Vec<(&'static str, String)> {
    let result = printed.result;
    let fingerprint = &result.fingerprint;
    let (model, device) = (&fingerprint.model, &fingerprint.device);
    let mut lines = vec![
        ("model", format!("{}{}", sanitize(&model.name), ui::bracketed(printed.labels))),
        (
            "weights",
            format!(
                "{}, {} parameters, {} active, {}",
                ui::bytes(model.bytes),
                parameters(model.total_parameters),
                parameters(model.active_parameters),
                model.dtype
            ),
        ),
        ("device", format!("{} ({})", sanitize(&device.adapter), device.backend)),
    ];
    if let Some(row) = result.rows.first() {
        lines.push(("workload", row.configuration.workload.clone()));
    }
    if let Some(peaks) = &result.peaks {
        lines.push((
            "peaks",
            format!(
                "{:.1} GB/s read, {:.1} GFLOP/s, measured here",
                peaks.read_bytes_per_second / 1e9,
                peaks.flops / 1e9
            ),
        ));
    }
    lines.extend(conditions::energy(printed).map(|energy| ("energy", energy)));
    lines.push(("conditions", conditions::line(printed)));
    lines
}

/// Parameters in millions or billions.
pub(super) fn parameters(n: u64) -> String {
    match n as f64 {
        n if n < 1e9 => format!("{:.2} M", n / 1e6),
        n => format!("{:.2} B", n / 1e9),
    }
}
