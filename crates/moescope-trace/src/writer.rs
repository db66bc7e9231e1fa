//! Writing a run, part by part while it goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::columns::{LayerColumns, RoutingColumns, StepColumns, TokenColumns};
use crate::error::TraceError;
use crate::files::{MANIFEST, clear_run, part_name, write_whole};
use crate::frame::{ToFrame, to_parquet};
use crate::manifest::{Manifest, SCHEMA_VERSION, Status};
use crate::schema::{LAYERS, ROUTING, STEPS, TOKENS, TableSpec};

/// Writes one run directory. Until [`finish`](RunWriter::finish) the run on disk is `partial`.
///
/// Each `write_*` makes one part. Few large parts read faster than many small ones: collect some ten
/// thousand rows, then write.
#[derive(Debug)]
pub struct RunWriter {
    dir: PathBuf,
    manifest: Manifest,
    tokens: Folder,
    routing: Folder,
    steps: Folder,
    layers: Folder,
}

/// One table's folder and the number of its next part.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    next: u32,
}

impl Folder {
    fn new(dir: &Path, table: TableSpec) -> Self {
        Self { path: dir.join(table.folder), next: 0 }
    }

    fn write(&mut self, columns: &impl ToFrame) -> Result<(), TraceError> {
        let mut frame = columns.to_frame()?;
        if columns.rows() == 0 {
            return Ok(());
        }
        let name = part_name(self.next);
        let bytes = to_parquet(&mut frame)
            .map_err(|source| TraceError::polars(&self.path.join(&name), "encode", source))?;
        if self.next == 0 {
            fs::create_dir_all(&self.path)
                .map_err(|source| TraceError::io(&self.path, "create", source))?;
        }
        write_whole(&self.path, &name, &bytes)?;
        self.next += 1;
        Ok(())
    }
}

impl RunWriter {
    /// Starts a run in `dir`, which must not exist; missing parents are created.
    ///
    /// With `force` an existing run or an empty directory is replaced. Only parts and the manifest are
    /// removed; a file beside them that is not part of a run stays.
    ///
    /// The manifest is on disk, as `partial`, when this returns.
    ///
    /// # Errors
    ///
    /// [`TraceError::OutputExists`] without `force`; [`TraceError::WillNotReplace`] with it where `dir` is
    /// a file or a directory that is not a run; [`TraceError::Io`].
    pub fn create(dir: &Path, mut manifest: Manifest, force: bool) -> Result<Self, TraceError> {
        manifest.schema_version = SCHEMA_VERSION;
        manifest.status = Status::Partial;
        match fs::symlink_metadata(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(TraceError::io(dir, "create", source)),
            Ok(_) if !force => {
                return Err(TraceError::OutputExists { path: dir.to_path_buf() });
            }
            Ok(_) => make_way(dir)?,
        }
        fs::create_dir_all(dir).map_err(|source| TraceError::io(dir, "create", source))?;
        let writer = Self {
            tokens: Folder::new(dir, TOKENS),
            routing: Folder::new(dir, ROUTING),
            steps: Folder::new(dir, STEPS),
            layers: Folder::new(dir, LAYERS),
            dir: dir.to_path_buf(),
            manifest,
        };
        writer.sync_manifest()?;
        Ok(writer)
    }

    /// The run directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The manifest as it will be written next.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, to fill in what is known only later; [`sync_manifest`](Self::sync_manifest) or
    /// [`finish`](Self::finish) writes it.
    pub fn manifest_mut(&mut self) -> &mut Manifest {
        &mut self.manifest
    }

    /// Replaces `manifest.json` with the manifest as it is now, in one move.
    ///
    /// # Errors
    ///
    /// [`TraceError::Io`].
    pub fn sync_manifest(&self) -> Result<(), TraceError> {
        let path = self.dir.join(MANIFEST);
        let mut text = serde_json::to_string_pretty(&self.manifest).map_err(|error| {
            TraceError::BrokenManifest { path: path.clone(), reason: error.to_string() }
        })?;
        text.push('\n');
        write_whole(&self.dir, MANIFEST, text.as_bytes())
    }

    /// Writes one part of `tokens/`; nothing if there are no rows.
    ///
    /// # Errors
    ///
    /// [`TraceError::ColumnLength`] where columns differ in length, [`TraceError::Io`]. The run stays
    /// readable: a part is there whole or not at all.
    pub fn write_tokens(&mut self, columns: &TokenColumns) -> Result<(), TraceError> {
        self.tokens.write(columns)
    }

    /// Writes one part of `routing/`; see [`write_tokens`](Self::write_tokens).
    ///
    /// Layers with different K or E go into different batches.
    ///
    /// # Errors
    ///
    /// As [`write_tokens`](Self::write_tokens).
    pub fn write_routing(&mut self, columns: &RoutingColumns) -> Result<(), TraceError> {
        self.routing.write(columns)
    }

    /// Writes one part of `steps/`; see [`write_tokens`](Self::write_tokens).
    ///
    /// # Errors
    ///
    /// As [`write_tokens`](Self::write_tokens).
    pub fn write_steps(&mut self, columns: &StepColumns) -> Result<(), TraceError> {
        self.steps.write(columns)
    }

    /// Writes one part of `layers/`; see [`write_tokens`](Self::write_tokens).
    ///
    /// # Errors
    ///
    /// As [`write_tokens`](Self::write_tokens).
    pub fn write_layers(&mut self, columns: &LayerColumns) -> Result<(), TraceError> {
        self.layers.write(columns)
    }

    /// Marks the run complete and returns its directory.
    ///
    /// # Errors
    ///
    /// [`TraceError::Io`]; the run then stays `partial`.
    pub fn finish(mut self) -> Result<PathBuf, TraceError> {
        self.manifest.status = Status::Complete;
        self.sync_manifest()?;
        Ok(self.dir)
    }
}

/// Empties what `--force` may replace: a run, or an empty directory.
fn make_way(dir: &Path) -> Result<(), TraceError> {
    let refuse = |reason: &str| {
        Err(TraceError::WillNotReplace { path: dir.to_path_buf(), reason: reason.to_string() })
    };
    // Follows links: a link to a run stays and the run behind it is replaced.
    let metadata = match fs::metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse("it is a link to nothing");
        }
        other => other.map_err(|source| TraceError::io(dir, "read", source))?,
    };
    if !metadata.is_dir() {
        return refuse("it is a file");
    }
    let mut entries = fs::read_dir(dir).map_err(|source| TraceError::io(dir, "list", source))?;
    if entries.next().is_none() {
        return Ok(());
    }
    let path = dir.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return refuse("it has no manifest.json");
        }
        other => other.map_err(|source| TraceError::io(&path, "read", source))?,
    };
    let Ok(Value::Object(mut manifest)) = serde_json::from_slice(&text) else {
        return refuse("its manifest.json is not a JSON object");
    };
    if !manifest.get("schema_version").is_some_and(Value::is_u64) {
        return refuse("its manifest.json has no schema_version");
    }
    // A process that dies while it clears leaves fewer parts: that must not look complete.
    manifest.insert("status".to_string(), Value::from("partial"));
    write_whole(dir, MANIFEST, Value::Object(manifest).to_string().as_bytes())?;
    clear_run(dir)
}
