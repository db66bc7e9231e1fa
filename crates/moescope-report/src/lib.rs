//! Reports over recorded runs: figures, one self-contained HTML page and its Markdown twin.
//!
//! ```text
//! Analysis, Comparison, Finding (moescope-analysis)
//!   -> Data       names made safe, rows indexed             data.rs
//!   -> Figure     drawn on a Canvas (plotters): SVG, PNG     figures/, canvas/
//!   -> Page       everything the templates show              page.rs
//!   -> index.html, report.md, figures/ID.png, figures/ID.svg render.rs, templates/
//! ```
//!
//! The page's only script is the token view (tokens/, templates/tokens.js); its content security policy lets
//! that script run and nothing else, and nothing load.
//!
//! Every text that comes from a run (tokens, prompts' domains, model, device and run names) is untrusted: it is
//! sanitised ([`sanitize`]) and escaped by the template engine for the format it goes into, HTML or
//! Markdown ([`markdown_escape`]), and by the SVG writer.
//!
//! Figures are drawn twice, for a desktop page and for a phone, so that no text is ever scaled below a
//! readable size; a media query shows one of them. Colours follow the reader's light or dark scheme.

mod bench;
mod bench_tables;
mod canvas;
mod conditions;
mod data;
mod error;
mod figures;
mod findings;
mod format;
mod markdown;
mod output;
mod page;
mod palette;
mod prose;
mod render;
mod sanitize;
mod sections;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod trend;

pub use error::ReportError;
pub use findings::grouped as grouped_findings;
pub use markdown::markdown_escape;
pub use render::{ReportOptions, ReportPaths, render};
pub use sanitize::{sanitize, shell_command};
pub use sections::section_names;
pub use trend::draw_trends;
