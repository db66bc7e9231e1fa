//! Opening a run and reading its tables, lazily or into vectors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use polars::prelude::LazyFrame;
use serde::Deserialize;

use crate::error::TraceError;
use crate::files::{MANIFEST, list_parts};
use crate::manifest::{Manifest, SCHEMA_VERSION, Status};
use crate::part::Part;
use crate::scan::scan;
use crate::schema::{LAYERS, ROUTING, STEPS, TOKENS, TableSpec};
use crate::tables::{LayerTable, RoutingTable, StepTable, TokenTable};
use crate::together::{RunTables, join_each, join_tables};
use crate::vectors;

/// A run directory opened for reading. Only the manifest is held; tables are read when asked for.
#[derive(Clone, Debug)]
pub struct Run {
    path: PathBuf,
    manifest: Manifest,
}

/// Which large optional columns of `routing/` to read into vectors. The default is neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoutingFields {
    /// The whole router distribution, `[E]` per row: E / K times the memory of everything else.
    pub probs: bool,
    /// Norms of the selected experts' outputs, `[K]` per row.
    pub output_norms: bool,
}

impl RoutingFields {
    /// Everything that was recorded.
    pub const ALL: Self = Self { probs: true, output_norms: true };
}

/// All a manifest needs to have before its version is known.
#[derive(Deserialize)]
struct Version {
    schema_version: Option<u64>,
}

impl Run {
    /// Opens a run and reads its manifest. The version is checked before any other field.
    ///
    /// # Errors
    ///
    /// [`TraceError::NotARun`], [`TraceError::UnsupportedSchema`], [`TraceError::BrokenManifest`],
    /// [`TraceError::Io`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        let dir = path.as_ref();
        let not_a_run = |reason: &str| TraceError::NotARun {
            path: dir.to_path_buf(),
            reason: reason.to_string(),
        };
        let file = dir.join(MANIFEST);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) => {
                return Err(match (error.kind(), dir.exists(), dir.is_dir()) {
                    (_, false, _) => not_a_run("there is nothing there"),
                    (_, true, false) => not_a_run("it is a file"),
                    (io::ErrorKind::NotFound, ..) => not_a_run("it has no manifest.json"),
                    _ => TraceError::io(&file, "read", error),
                });
            }
        };
        let broken = |error: serde_json::Error| TraceError::BrokenManifest {
            path: file.clone(),
            reason: error.to_string(),
        };
        let version: Version = serde_json::from_slice(&text).map_err(broken)?;
        match version.schema_version {
            None => return Err(not_a_run("its manifest.json has no schema_version")),
            Some(found) if found != u64::from(SCHEMA_VERSION) => {
                return Err(TraceError::UnsupportedSchema {
                    path: file,
                    found,
                    supported: SCHEMA_VERSION,
                });
            }
            Some(_) => {}
        }
        let manifest = serde_json::from_slice(&text).map_err(broken)?;
        Ok(Self { path: dir.to_path_buf(), manifest })
    }

    /// The run directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What ran, on what, and how.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether the run did not reach its end. Its parts are whole, but tokens may be without routing and the
    /// reverse; [`read`](Self::read) keeps what belongs together.
    pub fn is_partial(&self) -> bool {
        self.manifest.status == Status::Partial
    }

    /// `tokens/` as a lazy frame over its parts in order; empty with the same columns if there is none.
    ///
    /// # Errors
    ///
    /// The footer of every part is read: [`TraceError::UnreadablePart`], [`TraceError::MissingColumn`],
    /// [`TraceError::WrongType`], [`TraceError::MissingPart`], [`TraceError::Io`]. Damage in the middle of a
    /// part shows only when the frame is collected.
    pub fn tokens(&self) -> Result<LazyFrame, TraceError> {
        scan(&TOKENS, &self.parts(&TOKENS)?)
    }

    /// `routing/` as a lazy frame; see [`tokens`](Self::tokens). `probs` and `output_norms` are columns if
    /// any part has them.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    pub fn routing(&self) -> Result<LazyFrame, TraceError> {
        scan(&ROUTING, &self.parts(&ROUTING)?)
    }

    /// `steps/` as a lazy frame; see [`tokens`](Self::tokens).
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    pub fn steps(&self) -> Result<LazyFrame, TraceError> {
        scan(&STEPS, &self.parts(&STEPS)?)
    }

    /// `layers/` as a lazy frame; `None` if the run was not profiled.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens).
    pub fn layers(&self) -> Result<Option<LazyFrame>, TraceError> {
        let parts = self.parts(&LAYERS)?;
        if parts.is_empty() {
            return Ok(None);
        }
        scan(&LAYERS, &parts).map(Some)
    }

    /// `tokens/` as vectors, rows in the order of the file.
    ///
    /// # Errors
    ///
    /// As [`tokens`](Self::tokens), and [`TraceError::BadValue`] for a null or an unknown phase.
    pub fn read_tokens(&self) -> Result<TokenTable, TraceError> {
        vectors::read_tokens(&self.parts(&TOKENS)?)
    }

    /// `routing/` as vectors without the large optional columns, rows in the order of the file.
    ///
    /// # Errors
    ///
    /// As [`read_tokens`](Self::read_tokens), also for lists whose lengths differ within a row.
    pub fn read_routing(&self) -> Result<RoutingTable, TraceError> {
        self.read_routing_with(RoutingFields::default())
    }

    /// `routing/` as vectors with the optional columns asked for.
    ///
    /// # Errors
    ///
    /// As [`read_routing`](Self::read_routing).
    pub fn read_routing_with(&self, fields: RoutingFields) -> Result<RoutingTable, TraceError> {
        vectors::read_routing(&self.parts(&ROUTING)?, fields)
    }

    /// `steps/` as vectors, rows in the order of the file.
    ///
    /// # Errors
    ///
    /// As [`read_tokens`](Self::read_tokens).
    pub fn read_steps(&self) -> Result<StepTable, TraceError> {
        vectors::read_steps(&self.parts(&STEPS)?)
    }

    /// `layers/` as vectors; `None` if the run was not profiled.
    ///
    /// # Errors
    ///
    /// As [`read_tokens`](Self::read_tokens).
    pub fn read_layers(&self) -> Result<Option<LayerTable>, TraceError> {
        let parts = self.parts(&LAYERS)?;
        if parts.is_empty() {
            return Ok(None);
        }
        vectors::read_layers(&parts).map(Some)
    }

    /// All tables, reduced to the tokens whose routing is complete; see [`RunTables`].
    ///
    /// # Errors
    ///
    /// As [`read_routing`](Self::read_routing), and [`TraceError::Inconsistent`] where tables contradict each
    /// other or the manifest.
    pub fn read(&self) -> Result<RunTables, TraceError> {
        self.read_with(RoutingFields::default())
    }

    /// As [`read`](Self::read), with the optional columns of `routing/` asked for.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_with(&self, fields: RoutingFields) -> Result<RunTables, TraceError> {
        join_tables(
            self,
            self.read_tokens()?,
            self.read_routing_with(fields)?,
            self.read_steps()?,
            self.read_layers()?,
        )
    }

    /// Reads the routing of `tokens` (all tokens of the run) some row groups at a time, so that no whole table is
    /// held: calls `each` with routing rows and the row of each one's token in `tokens`, in the order of the
    /// files, and says of every token whether its routing was complete. Rows without a token are left out.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read), and what `each` returns.
    pub fn each_routing<E: From<TraceError>>(
        &self,
        tokens: &TokenTable,
        fields: RoutingFields,
        each: impl FnMut(&RoutingTable, &[u32]) -> Result<(), E>,
    ) -> Result<Vec<bool>, E> {
        let parts = self.parts(&ROUTING)?;
        join_each(self, tokens, |batch| vectors::each_routing(&parts, fields, batch), each)
    }

    /// The parts of a table in order. A complete run has no gap in their numbers; a partial one may, so that
    /// a damaged part can be taken out and the rest still be read.
    fn parts(&self, table: &TableSpec) -> Result<Vec<Part>, TraceError> {
        let folder = self.path.join(table.folder);
        let listed = list_parts(&folder)?;
        if !self.is_partial() {
            for (expected, (number, _)) in (0u32..).zip(&listed) {
                if *number != expected {
                    return Err(TraceError::MissingPart { folder, missing: expected });
                }
            }
        }
        listed.iter().map(|(_, path)| Part::open(path, table)).collect()
    }
}
