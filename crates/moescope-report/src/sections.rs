//! The parts of a page that a reader can ask for or leave out.

use crate::error::ReportError;

/// Short name and heading, in the order of the page. A figure names the section it stands in. The runs
/// and their conditions are on every page: no number stands without them.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    (FINDINGS, "What stands out"),
    (TOKENS, "Text and experts"),
    (COMPARED, "Runs compared"),
    (LOAD, "Load"),
    (SPECIALISATION, "Specialisation and confidence"),
    (STRUCTURE, "Experts together and in sequence"),
    (CACHING, "Locality and caching"),
    (DEPLOYMENT, "Placement and pruning"),
    (SPEED, "Speed"),
    (BENCH, "Throughput"),
    (MEMORY, "Memory"),
    (DEFINITIONS, "Definitions"),
];

pub(crate) const FINDINGS: &str = "findings";
pub(crate) const TOKENS: &str = "tokens";
pub(crate) const COMPARED: &str = "compared";
pub(crate) const LOAD: &str = "load";
pub(crate) const SPECIALISATION: &str = "specialisation";
pub(crate) const STRUCTURE: &str = "structure";
pub(crate) const CACHING: &str = "caching";
pub(crate) const DEPLOYMENT: &str = "deployment";
pub(crate) const SPEED: &str = "speed";
pub(crate) const BENCH: &str = "bench";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const DEFINITIONS: &str = "definitions";

/// Short names of the sections of a report, in the order of the page.
pub fn section_names() -> impl Iterator<Item = &'static str> {
    SECTIONS.iter().map(|(name, _)| *name)
}

/// Heading of a section.
pub(crate) fn heading(name: &str) -> &'static str {
    SECTIONS.iter().find(|(known, _)| *known == name).map_or("", |(_, heading)| heading)
}

/// The sections asked for; all where nothing was.
pub(crate) fn chosen(asked: &[String]) -> Result<Vec<&'static str>, ReportError> {
    for name in asked {
        if !section_names().any(|known| known == name) {
            return Err(ReportError::UnknownSection {
                name: name.clone(),
                known: section_names().collect::<Vec<_>>().join(", "),
            });
        }
    }
    Ok(section_names().filter(|name| asked.is_empty() || asked.iter().any(|a| a == name)).collect())
}
