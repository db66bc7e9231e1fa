//! `moescope report`.

use std::path::PathBuf;

use clap::{Args, builder::PossibleValuesParser};
use moescope_analysis::{Finding, Options, analyze_all, findings};
use moescope_report::{
    ReportOptions, ReportPaths, grouped_findings, render, sanitize, section_names,
};
use moescope_trace::{BenchResult, Run};

use crate::{args::Output, ui};

/// Write a report over one or more runs.
#[derive(Args)]
pub(crate) struct Report {
    /// Run directories, the others compared with the first, and files of `moescope bench`.
    #[arg(required = true, value_name = "RUN|BENCH")]
    runs: Vec<PathBuf>,
    #[command(flatten)]
    output: Output,
    /// Heading; the names of the models by default.
    #[arg(long)]
    title: Option<String>,
    /// Write only these sections; the runs and their conditions are always there.
    #[arg(long, value_delimiter = ',', value_name = "A,B", value_parser = PossibleValuesParser::new(section_names()))]
    sections: Vec<String>,
}

impl Report {
    pub(crate) fn execute(self) -> anyhow::Result<()> {
        // A run is a directory, a bench result a file.
        let (files, runs): (Vec<_>, Vec<_>) =
            self.runs.into_iter().partition(|path| path.is_file());
        let mut benches = Vec::new();
        for file in &files {
            benches.extend(BenchResult::read(file)?);
        }
        let options = ReportOptions {
            benches,
            title: self.title,
            command: ui::command_line(),
            out_dir: self.output.output,
            sections: self.sections,
            force: self.output.force,
        };
        let (paths, findings) = write(&runs, &options)?;
        let mut text = top_findings(&findings);
        text.push_str(&format!("{}\n", sanitize(&paths.html.display().to_string())));
        text.push_str(&format!("{}\n", sanitize(&paths.markdown.display().to_string())));
        ui::print(&text)
    }
}

/// Analyses runs and writes their report.
pub(crate) fn write(
    runs: &[PathBuf],
    options: &ReportOptions,
) -> anyhow::Result<(ReportPaths, Vec<Finding>)> {
    let runs = runs.iter().map(Run::open).collect::<Result<Vec<_>, _>>()?;
    for run in runs.iter().filter(|run| run.is_partial()) {
        ui::note(format!("{}: partial run; what it holds is reported", run.path().display()));
    }
    let (analyses, comparisons) = analyze_all(&runs, &Options::default())?;
    let findings = findings(&analyses, &comparisons);
    let paths = render(&analyses, &comparisons, &findings, options)?;
    // The same of many runs is said once.
    let leading =
        grouped_findings(&findings, &analyses).iter().map(|group| group[0].clone()).collect();
    Ok((paths, leading))
}

/// The three results with the largest effects, one line each; reservations are in the report.
pub(crate) fn top_findings(findings: &[Finding]) -> String {
    let results = findings.iter().filter(|finding| !finding.caveat).take(3);
    results.map(|finding| format!("- {}\n", sanitize(&finding.headline))).collect()
}
