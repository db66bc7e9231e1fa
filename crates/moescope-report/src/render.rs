//! From analyses to files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use minijinja::{AutoEscape, Environment, Value, context, escape_formatter};
use moescope_analysis::{Analysis, Comparison, Finding};
use moescope_trace::BenchResult;

use crate::bench::Bench;
use crate::canvas::{to_png, to_svg_file};
use crate::data::Data;
use crate::error::ReportError;
use crate::figures::{FIGURES, Figure, WIDE};
use crate::findings::grouped;
use crate::markdown::{fenced, markdown_escape};
use crate::output::Staging;
use crate::page::Page;
use crate::palette::dark_css;
use crate::prose;

/// How a report is made.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// Heading; the names of the models where there is none.
    pub title: Option<String>,
    /// The command line that makes this report, printed at its end.
    pub command: Vec<String>,
    /// Directory to write to; made if it does not exist.
    pub out_dir: PathBuf,
    /// Sections to write, of [`crate::section_names`]; all where there is none. The runs and their
    /// conditions are always there.
    pub sections: Vec<String>,
    /// Results of `moescope bench`, shown in a section of their own.
    pub benches: Vec<BenchResult>,
    /// Write into a directory that holds other files than a report.
    pub force: bool,
}

/// Files of a finished report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPaths {
    /// The page, self-contained.
    pub html: PathBuf,
    /// Its Markdown twin, which shows the PNG files.
    pub markdown: PathBuf,
    /// Figures, PNG and SVG.
    pub figures: Vec<PathBuf>,
}

/// Writes a report over one or more runs, or bench results: `index.html`, `report.md` and `figures/`.
///
/// The report is written beside `out_dir` and moved into place when it is complete. A report of an
/// earlier time is replaced; a directory with other files is refused unless `force` is set, and its
/// files are kept then. The same input gives the same bytes.
///
/// # Errors
///
/// [`ReportError::NoRuns`], [`ReportError::UnknownSection`], [`ReportError::OutputExists`] and [`ReportError::OutputIsFile`] for the
/// arguments; [`ReportError::Write`] and [`ReportError::Draw`] when files cannot be written.
pub fn render(
    analyses: &[Analysis],
    comparisons: &[Comparison],
    findings: &[Finding],
    options: &ReportOptions,
) -> Result<ReportPaths, ReportError> {
    if analyses.is_empty() && options.benches.is_empty() {
        return Err(ReportError::NoRuns);
    }
    // First what can be refused at once, then the work.
    let staging = Staging::new(&options.out_dir, options.force)?;
    let mut data = Data::new(analyses, comparisons);
    data.name(findings);
    data.benches = Bench::all(&options.benches);
    let data = data;
    let (title, command) = (options.title.as_deref(), &options.command);
    let page = Page::new(&data, &grouped(findings, analyses), title, command, &options.sections)?;
    let (html, markdown) = fill(&page)?;

    let shown: Vec<&str> = page.figures().collect();
    let (drawn, absent): (Vec<&Figure>, Vec<&Figure>) =
        FIGURES.iter().partition(|figure| shown.contains(&figure.id));
    let names =
        |figure: &&Figure| ["png", "svg"].map(|kind| format!("figures/{}.{kind}", figure.id));
    let mut files: Vec<String> = drawn.iter().flat_map(names).collect();
    let stale: Vec<String> = absent.iter().flat_map(names).collect();
    let style = format!("@media(prefers-color-scheme:dark){{{}}}", dark_css());
    each_in_parallel(&drawn, |figure| {
        let failed = |message| ReportError::Draw { figure: figure.id, message };
        let [png, svg] = &names(figure);
        to_png(&staging.path(png), WIDE, |canvas| (figure.draw)(canvas, &data)).map_err(failed)?;
        let drawn = to_svg_file(WIDE, &style, |canvas| (figure.draw)(canvas, &data));
        staging.write(svg, &drawn.map_err(failed)?)
    })?;
    let figures = files.iter().map(|name| options.out_dir.join(name)).collect();
    staging.write("report.md", &markdown)?;
    staging.write("index.html", &html)?;
    files.extend(["report.md".to_owned(), "index.html".to_owned()]);
    staging.finish(&files, &stale)?;
    Ok(ReportPaths {
        html: options.out_dir.join("index.html"),
        markdown: options.out_dir.join("report.md"),
        figures,
    })
}

/// Calls `work` for each item on the machine's cores; of failures, that of the first item.
pub(crate) fn each_in_parallel<T: Sync, R: Send, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((n, item)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|n| Some((n, items.get(n)?)))
                {
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Fills both templates: (HTML, Markdown).
pub(crate) fn fill(page: &Page) -> Result<(String, String), ReportError> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|name| match name {
        "report.md" => AutoEscape::Custom("markdown"),
        _ => AutoEscape::Html,
    });
    environment.set_formatter(|out, state, value| match state.auto_escape() {
        AutoEscape::Custom(_) if value.is_safe() => Ok(write!(out, "{value}")?),
        AutoEscape::Custom(_) if value.is_none() || value.is_undefined() => Ok(()),
        AutoEscape::Custom(_) => Ok(out.write_str(&markdown_escape(&value.to_string()))?),
        _ => escape_formatter(out, state, value),
    });
    environment
        .add_filter("html_prose", |text: String| Value::from_safe_string(prose::html(&text)));
    environment
        .add_filter("md_prose", |text: String| Value::from_safe_string(prose::markdown(&text)));
    environment.add_filter("fenced", |text: String| Value::from_safe_string(fenced(&text)));
    environment.add_template("report.html", include_str!("../templates/report.html"))?;
    environment.add_template("report.md", include_str!("../templates/report.md"))?;
    let context = context! {
        page => Value::from_serialize(page),
        style => include_str!("../templates/style.css"),
    };
    let html = environment.get_template("report.html")?.render(&context)?;
    let markdown = environment.get_template("report.md")?.render(&context)?;
    Ok((html, squeezed(&markdown)))
}

/// At most one blank line in a row: templates leave some where a part is absent.
fn squeezed(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = line.trim_end();
        if !(line.is_empty() && lines.last().is_none_or(|last| last.is_empty())) {
            lines.push(line);
        }
    }
    lines.join("\n") + "\n"
}
