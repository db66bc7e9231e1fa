//! A result as Markdown: the first columns are llama-bench's (model, size, params, backend, test, t/s).

use moescope_report::markdown_escape as escape;
use moescope_trace::bench::BenchRow;

use super::{
    Printed,
    columns::{Table, cells},
    conditions,
    summary::{self, Summary},
    text::parameters,
};
use crate::ui;

pub(super) fn render(printed: &Printed<'_>) -> String {
    let result = printed.result;
    let (model, device) = (&result.fingerprint.model, &result.fingerprint.device);
    let rows: Vec<(&BenchRow, Summary)> =
        result.rows.iter().map(|row| (row, Summary::of(row, printed))).collect();
    let name = format!("{} {}{}", model.name, model.dtype, ui::bracketed(printed.labels));
    let fixed: Vec<String> =
        [name, ui::bytes(model.bytes), parameters(model.total_parameters), device.backend.clone()]
            .iter()
            .map(|cell| escape(cell))
            .collect();
    let (header, lines) = cells(Table::Speed, &rows);
    let header: Vec<&str> =
        ["model", "size", "params", "backend"].into_iter().chain(header).collect();
    let lines: Vec<Vec<String>> =
        lines.into_iter().map(|line| fixed.iter().cloned().chain(line).collect()).collect();
    let mut text = table(&header, &lines);
    let (header, lines) = cells(Table::Facts, &rows);
    if header.len() > 1 {
        text.push('\n');
        text.push_str(&table(&header, &lines));
    }
    text.push('\n');
    for row in result.rows.iter().filter(|row| row.error.is_some()) {
        let error = row.error.as_deref().unwrap_or_default();
        text.push_str(&format!("- {}: {}\n", summary::test(&row.configuration), escape(error)));
    }
    let workload = result.rows.first().map_or("", |row| &row.configuration.workload);
    text.push_str(&format!("\nworkload {workload}; medians of samples"));
    if let Some(energy) = conditions::energy(printed) {
        text.push_str(&format!("; energy of {}", escape(&energy)));
    }
    text.push_str(&format!("\n\nconditions: {}\n", escape(&conditions::line(printed))));
    text
}

fn table(header: &[&str], lines: &[Vec<String>]) -> String {
    let row = |cells: &mut dyn Iterator<Item = &str>| {
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut text = row(&mut header.iter().copied());
    let left = ["model", "backend"];
    text.push_str(&row(&mut header.iter().map(|h| if left.contains(h) { "---" } else { "---:" })));
    for line in lines {
        text.push_str(&row(&mut line.iter().map(String::as_str)));
    }
    text
}
