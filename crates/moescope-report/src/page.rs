//! Everything a page shows, finished but for the escaping, which is the templates' business.

use moescope_analysis::{Finding, METRICS, TokenWise};
use serde::Serialize;

use crate::bench_tables;
use crate::canvas::to_svg;
use crate::conditions::{self, Fact};
use crate::data::Data;
use crate::error::ReportError;
use crate::figures::{FIGURES, Figure, NARROW, WIDE};
use crate::findings::typeset;
use crate::format::{NOTHING, count, list, percent, plural};
use crate::render::each_in_parallel;
use crate::sanitize::{sanitize, shell_command};
use crate::sections;
use crate::table::Table;
use crate::tokens::{self, TokenView};

/// The context of both templates.
#[derive(Serialize)]
pub(crate) struct Page {
    title: String,
    version: &'static str,
    lead: String,
    runs: Vec<RunView>,
    conditions: Vec<Conditions>,
    /// Few runs are cards, many are the rows of a table.
    cards: bool,
    summary_table: Table,
    labels: Vec<Fact>,
    /// `None` where not asked for, as with the next two.
    findings: Option<Vec<FindingView>>,
    /// Findings shown at once; the others are folded.
    first_findings: usize,
    tokens: Option<Tokens>,
    definitions: Option<Vec<Definition>>,
    sections: Vec<Section>,
    /// Id and heading of everything below the page's head.
    contents: Vec<(&'static str, &'static str)>,
    command: String,
    dark_css: String,
}

/// The token view, or why there is none.
#[derive(Serialize)]
struct Tokens {
    view: Option<TokenView>,
    style: String,
    script: &'static str,
    script_hash: &'static str,
}

#[derive(Serialize)]
struct RunView {
    name: String,
    tags: Vec<&'static str>,
    summary: Vec<Fact>,
}

/// Everything known of a run or a bench result.
#[derive(Serialize)]
struct Conditions {
    name: String,
    tags: Vec<&'static str>,
    facts: Vec<Fact>,
}

#[derive(Serialize)]
struct FindingView {
    headline: String,
    detail: String,
    /// Id and number of its figure.
    figure: Option<(&'static str, usize)>,
    /// A reservation about the runs, not a result.
    caveat: bool,
    /// The same of other runs.
    others: Vec<FindingView>,
}

#[derive(Serialize)]
struct Section {
    id: &'static str,
    title: &'static str,
    /// Before the figures, each with what it shows.
    tables: Vec<(&'static str, Table)>,
    figures: Vec<FigureView>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct FigureView {
    id: &'static str,
    number: usize,
    title: &'static str,
    wide: String,
    narrow: String,
    /// How to read it.
    reading: String,
    /// What it shows.
    facts: Vec<String>,
    table: Table,
}

#[derive(Serialize)]
struct Definition {
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    formula: &'static str,
    chance: &'static str,
    source: &'static str,
}

/// Runs up to which each has a card of its own.
const MAX_CARDS: usize = 4;

/// More findings than this are folded.
const FIRST_FINDINGS: usize = 8;

impl Page {
    pub(crate) fn new(
        data: &Data<'_>,
        findings: &[Vec<&Finding>],
        title: Option<&str>,
        command: &[String],
        asked: &[String],
    ) -> Result<Self, ReportError> {
        let chosen = sections::chosen(asked)?;
        let wanted = |name| chosen.contains(&name);
        let sections = figure_sections(data, &chosen)?;
        let number = |id: &str| {
            let mut figures = sections.iter().flat_map(|section| &section.figures);
            figures.find(|figure| figure.id == id).map(|figure| (figure.id, figure.number))
        };
        let findings = wanted(sections::FINDINGS).then(|| {
            let view = |finding: &Finding| FindingView {
                headline: typeset(&sanitize(&finding.headline)),
                detail: typeset(&sanitize(&finding.detail)),
                figure: finding.figure.and_then(number),
                caveat: finding.caveat,
                others: vec![],
            };
            let group = |group: &Vec<&Finding>| {
                let (first, others) = group.split_first()?;
                let others = others.iter().map(|other| view(other)).collect();
                Some(FindingView { others, ..view(first) })
            };
            findings.iter().filter_map(group).collect::<Vec<_>>()
        });
        let caveats = findings.iter().flatten().filter(|finding| finding.caveat).count();
        let mut contents: Vec<&'static str> = Vec::new();
        let any_run = !data.runs.is_empty();
        let findings = findings.filter(|_| any_run);
        contents.extend(findings.as_ref().map(|_| sections::FINDINGS));
        contents.extend(any_run.then_some("runs"));
        let tokens = any_run && wanted(sections::TOKENS);
        contents.extend(tokens.then_some(sections::TOKENS));
        contents.extend(sections.iter().map(|section| section.id));
        let defined = any_run && wanted(sections::DEFINITIONS);
        contents.extend(defined.then_some(sections::DEFINITIONS));
        contents.push("conditions");
        let contents = contents
            .into_iter()
            .map(|id| match id {
                "runs" => (id, "Runs"),
                "conditions" => (id, "Conditions"),
                _ => (id, sections::heading(id)),
            })
            .collect();
        let mut labels: Vec<Fact> = Vec::new();
        let of_benches = data.benches.iter().flat_map(|bench| &bench.tags);
        for tag in data.runs.iter().flat_map(|run| &run.tags).chain(of_benches) {
            if !labels.iter().any(|(known, _)| known == tag) {
                labels.push((tag.to_string(), conditions::meaning(tag).into()));
            }
        }
        let of_runs = data.runs.iter().map(|run| Conditions {
            name: run.name.clone(),
            tags: run.tags.clone(),
            facts: conditions::all(run),
        });
        let of_benches = data.benches.iter().map(|bench| Conditions {
            name: bench.name.clone(),
            tags: bench.tags.clone(),
            facts: conditions::of_bench(bench.result),
        });
        let runs = data
            .runs
            .iter()
            .map(|run| RunView {
                name: run.name.clone(),
                tags: run.tags.clone(),
                summary: conditions::summary(run),
            })
            .collect();
        Ok(Self {
            title: title.map_or_else(|| default_title(data), |title| sanitize(title).into_owned()),
            version: env!("CARGO_PKG_VERSION"),
            lead: lead(data),
            runs,
            conditions: of_runs.chain(of_benches).collect(),
            cards: data.runs.len() <= MAX_CARDS,
            summary_table: summary_table(data),
            labels,
            findings,
            first_findings: FIRST_FINDINGS + caveats,
            tokens: tokens.then(|| Tokens {
                view: TokenView::new(data),
                style: tokens::style(),
                script: tokens::SCRIPT,
                script_hash: tokens::SCRIPT_HASH,
            }),
            definitions: defined.then(definitions),
            sections,
            contents,
            command: shell_command(command),
            dark_css: crate::palette::dark_css(),
        })
    }

    /// Ids of the figures on the page.
    pub(crate) fn figures(&self) -> impl Iterator<Item = &'static str> {
        self.sections.iter().flat_map(|section| section.figures.iter().map(|figure| figure.id))
    }
}

fn default_title(data: &Data<'_>) -> String {
    let mut models: Vec<String> = Vec::new();
    let of_runs = data.runs.iter().map(|run| &run.manifest.model.name);
    let of_benches = data.benches.iter().map(|bench| &bench.result.fingerprint.model.name);
    for model in of_runs.chain(of_benches) {
        let name = crate::sanitize::short(model, 48);
        if !models.contains(&name) {
            models.push(name);
        }
    }
    if models.len() > 3 {
        return format!("{} models", models.len());
    }
    list(&models)
}

fn lead(data: &Data<'_>) -> String {
    let benches = match data.benches.len() as u64 {
        0 => String::new(),
        n => plural(n, "bench result"),
    };
    if data.runs.is_empty() {
        return format!("{benches}: how fast the model runs, by batch, depth and prompt length.");
    }
    let beside = match benches.is_empty() {
        true => String::new(),
        false => format!(" Beside them {benches}."),
    };
    let tokens: u64 = data.runs.iter().map(|run| run.tokens).sum();
    let devices = data.devices().len() as u64;
    format!(
        "{}, {} and {}. How the experts of the model are used, and how fast and at what memory it ran.{beside}",
        plural(data.runs.len() as u64, "run"),
        plural(tokens, "token"),
        plural(devices, "device")
    )
}

fn summary_table(data: &Data<'_>) -> Table {
    let facts: Vec<Vec<Fact>> = data.runs.iter().map(conditions::summary).collect();
    // Runs may lack a fact (no times recorded): a column is there if any run has it.
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in facts.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value = |facts: &[Fact], name: &str| {
        let found = facts.iter().find(|(known, _)| known == name);
        found.map_or(NOTHING.into(), |(_, value)| value.clone())
    };
    // Of many runs only what differs is worth a column.
    let mut shared: Vec<String> = Vec::new();
    if facts.len() > MAX_CARDS {
        names.retain(|name| {
            let first = value(&facts[0], name);
            let same = facts.iter().all(|facts| value(facts, name) == first);
            if same {
                shared.push(format!("{name} {first}"));
            }
            !same
        });
    }
    let mut table = Table::new().text("Run");
    for name in &names {
        table = table.text(name);
    }
    for (run, facts) in data.runs.iter().zip(&facts) {
        let mut cells = vec![run.tagged()];
        cells.extend(names.iter().map(|name| value(facts, name)));
        table.row(cells);
    }
    if !shared.is_empty() {
        table.note(format!("The same in all runs: {}.", shared.join("; ")));
    }
    table
}

/// Draws all applicable figures of the chosen sections; what cannot be drawn becomes a sentence in its
/// section.
fn figure_sections(data: &Data<'_>, chosen: &[&'static str]) -> Result<Vec<Section>, ReportError> {
    let mut sections: Vec<Section> = Vec::new();
    let mut number = 0;
    for &id in chosen {
        let figures: Vec<&Figure> = FIGURES.iter().filter(|figure| figure.section == id).collect();
        // Of one run there is nothing to compare.
        let nothing_to_compare = id == sections::COMPARED && data.runs.len() < 2;
        // A section is about runs or about bench results.
        let about_nothing = match id {
            sections::BENCH => data.benches.is_empty(),
            _ => data.runs.is_empty(),
        };
        if figures.is_empty() || nothing_to_compare || about_nothing {
            continue;
        }
        let mut section = Section {
            id,
            title: sections::heading(id),
            tables: vec![],
            figures: vec![],
            notes: vec![],
        };
        if id == sections::COMPARED {
            let (table, notes) = comparisons(data);
            section.tables.extend(table.map(|t| ("Routing of the same tokens in two runs", t)));
            section.notes = notes;
        }
        if id == sections::BENCH {
            section.tables = bench_tables::tables(data);
        }
        let mut missing: Vec<(String, Vec<String>)> = Vec::new();
        let mut drawn = Vec::new();
        for figure in figures {
            match (figure.applicable)(data) {
                Ok(()) => {
                    number += 1;
                    drawn.push((figure, number));
                }
                Err(reason) => match missing.iter_mut().find(|(known, _)| *known == reason) {
                    Some((_, titles)) => titles.push(figure.title.to_lowercase()),
                    None => missing.push((reason, vec![figure.title.to_lowercase()])),
                },
            }
        }
        section.figures = each_in_parallel(&drawn, |(figure, number)| view(figure, *number, data))?;
        for (reason, titles) in missing {
            section.notes.push(format!("No figure of {}: {reason}.", list(&titles)));
        }
        sections.push(section);
    }
    Ok(sections)
}

fn view(figure: &Figure, number: usize, data: &Data<'_>) -> Result<FigureView, ReportError> {
    let svg = |width| {
        to_svg(width, |canvas| (figure.draw)(canvas, data))
            .map_err(|message| ReportError::Draw { figure: figure.id, message })
    };
    let caption = (figure.caption)(data);
    Ok(FigureView {
        id: figure.id,
        number,
        title: figure.title,
        wide: svg(WIDE)?,
        narrow: svg(NARROW)?,
        reading: caption.reading.clone(),
        facts: caption.sentences(),
        table: (figure.table)(data),
    })
}

/// How the other runs' routing compares with the first's, token by token.
fn comparisons(data: &Data<'_>) -> (Option<Table>, Vec<String>) {
    let mut table = Table::new()
        .text("Run")
        .text("Against")
        .number("Tokens compared")
        .number("Routing overlap (95\u{a0}% interval)")
        .number("By chance")
        .number("Same experts (95\u{a0}% interval)")
        .number("By chance");
    let mut notes = Vec::new();
    let mut rows = 0;
    for comparison in data.comparisons {
        let (Some(base), Some(other)) =
            (data.runs.get(comparison.base), data.runs.get(comparison.other))
        else {
            continue;
        };
        match &comparison.token_wise {
            TokenWise::Compared { tokens, .. } => {
                let mut cells = vec![other.tagged(), base.tagged(), count(*tokens as u64)];
                for metric in ["routing_overlap", "same_experts"] {
                    let row = comparison.overall(metric);
                    let share = |value: Option<f64>| value.map_or(NOTHING.into(), percent);
                    let interval = row
                        .and_then(|row| row.interval)
                        .map(|(low, high)| format!(" ({} – {})", percent(low), percent(high)));
                    let value = share(row.map(|row| row.value));
                    cells.push(value + &interval.unwrap_or_default());
                    cells.push(share(row.and_then(|row| row.chance)));
                }
                table.row(cells);
                rows += 1;
            }
            TokenWise::Refused(refusal) => notes.push(format!(
                "{} and {} were not compared token by token: {}.",
                other.tagged(),
                base.tagged(),
                sanitize(&refusal.to_string())
            )),
        }
    }
    table.note(
        "Overlap is the mean share of a token's experts that both runs select; same experts is the share \
         of tokens with the same set. Both are means over layers, on the tokens both runs read after the \
         same beginning.",
    );
    ((rows > 0).then_some(table), notes)
}

fn definitions() -> Vec<Definition> {
    METRICS
        .iter()
        .map(|metric| Definition {
            name: metric.name,
            title: metric.title,
            unit: metric.unit,
            formula: metric.formula,
            chance: metric.chance,
            source: metric.source,
        })
        .collect()
}
