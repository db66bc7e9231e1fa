//! Tables into plain vectors: columns are copied slice by slice, never row by row through a data frame.

use std::path::Path;

use polars::prelude::*;

use crate::columns::Phase;
use crate::error::TraceError;
use crate::lists::{Aligned, Chunk, Flat, Gaps};
use crate::part::Part;
use crate::reader::RoutingFields;
use crate::schema::{LAYERS, ROUTING, STEPS, TOKENS, TableSpec};
use crate::tables::{LayerTable, Lists, RoutingTable, StepTable, TokenTable};

/// Row groups read at a time: about a million rows of scalars in memory beside the result.
const GROUPS_AT_ONCE: usize = 4;

/// Columns of one batch of row groups of one part.
struct Batch<'a> {
    path: &'a Path,
    frame: &'a DataFrame,
}

impl Batch<'_> {
    fn bad(&self, column: &'static str, problem: impl Into<String>) -> TraceError {
        TraceError::BadValue { part: self.path.to_path_buf(), column, problem: problem.into() }
    }

    fn rows(&self) -> usize {
        self.frame.height()
    }

    /// `None` where the part has no such column.
    fn series(&self, column: &str) -> Option<&Series> {
        self.frame.column(column).ok().map(Column::as_materialized_series)
    }

    /// The column with its type. Parts were checked when they were opened, so a failure here is a part that
    /// changed while it was read.
    fn typed<T: PolarsPhysicalType>(
        &self,
        column: &'static str,
    ) -> Result<&ChunkedArray<T>, TraceError> {
        self.series(column)
            .and_then(|series| series.unpack::<T>().ok())
            .ok_or_else(|| self.changed(column))
    }

    fn changed(&self, column: &'static str) -> TraceError {
        self.bad(column, "the part changed while it was read")
    }

    fn no_nulls(&self, column: &'static str, nulls: usize) -> Result<(), TraceError> {
        if nulls == 0 {
            return Ok(());
        }
        Err(self.bad(column, format!("{nulls} null values, expected none")))
    }

    fn numbers<T: PolarsNumericType>(
        &self,
        column: &'static str,
        out: &mut Vec<T::Native>,
    ) -> Result<(), TraceError> {
        let values = self.typed::<T>(column)?;
        self.no_nulls(column, values.null_count())?;
        for slice in values.data_views() {
            out.extend_from_slice(slice);
        }
        Ok(())
    }

    fn options<T: PolarsNumericType>(
        &self,
        column: &'static str,
        out: &mut Vec<Option<T::Native>>,
    ) -> Result<(), TraceError> {
        out.extend(self.typed::<T>(column)?.iter());
        Ok(())
    }

    fn gaps(&self, column: &'static str, out: &mut Gaps) -> Result<(), TraceError> {
        let values = self.typed::<Float32Type>(column)?;
        if values.null_count() == values.len() {
            out.skip(values.len());
        } else if values.null_count() == 0 {
            values.data_views().for_each(|slice| out.extend(slice));
        } else {
            for value in values.iter() {
                match value {
                    Some(value) => out.extend(&[value]),
                    None => out.skip(1),
                }
            }
        }
        Ok(())
    }

    fn texts(
        &self,
        column: &'static str,
        mut each: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), TraceError> {
        let values = self.typed::<StringType>(column)?;
        self.no_nulls(column, values.null_count())?;
        for text in values.iter().flatten() {
            each(text).map_err(|problem| self.bad(column, problem))?;
        }
        Ok(())
    }

    fn phases(&self, out: &mut Vec<Phase>) -> Result<(), TraceError> {
        self.texts("phase", |name| {
            out.push(Phase::parse(name).ok_or_else(|| {
                format!("{name:?} is not a phase, expected \"prefill\" or \"decode\"")
            })?);
            Ok(())
        })
    }

    /// Each chunk of a list column: offsets, validity, and the flat values they point into.
    fn lists<T: PolarsNumericType>(
        &self,
        column: &'static str,
        mut each: impl FnMut(Chunk<'_, T::Native>) -> Result<(), String>,
    ) -> Result<(), TraceError> {
        let lists = self
            .series(column)
            .and_then(|series| series.list().ok())
            .ok_or_else(|| self.changed(column))?;
        let inner = lists.get_inner();
        let inner = inner.unpack::<T>().map_err(|_| self.changed(column))?;
        self.no_nulls(column, inner.null_count())?;
        for (chunk, values) in lists.downcast_iter().zip(inner.data_views()) {
            let null = chunk
                .validity()
                .filter(|valid| valid.unset_bits() > 0)
                .map(|valid| valid.iter().map(|valid| !valid).collect());
            each(Chunk { offsets: chunk.offsets().as_slice(), null, values })
                .map_err(|problem| self.bad(column, problem))?;
        }
        Ok(())
    }
}

/// Text that repeats, as an index into its distinct values in order of first appearance.
struct Dictionary {
    column: &'static str,
    names: Vec<String>,
    index: PlHashMap<String, u16>,
}

impl Dictionary {
    fn new(column: &'static str) -> Self {
        Self { column, names: Vec::new(), index: PlHashMap::default() }
    }

    fn read(&mut self, batch: &Batch<'_>, out: &mut Vec<u16>) -> Result<(), TraceError> {
        let mut last: Option<(String, u16)> = None;
        batch.texts(self.column, |text| {
            let index = match &last {
                Some((name, index)) if name == text => *index,
                _ => {
                    let index = self.index_of(text)?;
                    last = Some((text.to_string(), index));
                    index
                }
            };
            out.push(index);
            Ok(())
        })
    }

    fn index_of(&mut self, text: &str) -> Result<u16, String> {
        if let Some(index) = self.index.get(text) {
            return Ok(*index);
        }
        let index = u16::try_from(self.names.len())
            .map_err(|_| "more than 65,536 different values".to_string())?;
        self.names.push(text.to_string());
        self.index.insert(text.to_string(), index);
        Ok(index)
    }
}

fn total_rows(parts: &[Part]) -> usize {
    parts.iter().map(Part::rows).sum()
}

/// A vector with room for `rows`. The number comes from the file: where it cannot be had, the vector grows as
/// the values turn up.
fn room<T>(rows: usize) -> Vec<T> {
    let mut values = Vec::new();
    let _ = values.try_reserve_exact(rows);
    values
}

/// Calls `each` with the columns of every row group of every part in order.
fn for_each_batch<E: From<TraceError>>(
    parts: &[Part],
    table: &TableSpec,
    wanted: impl Fn(&str) -> bool,
    groups_at_once: usize,
    mut each: impl FnMut(&Batch<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let columns: Vec<&str> =
        table.columns.iter().map(|column| column.name).filter(|name| wanted(name)).collect();
    for part in parts {
        part.read(&columns, groups_at_once, |frame| each(&Batch { path: &part.path, frame }))?;
    }
    Ok(())
}

pub(crate) fn read_tokens(parts: &[Part]) -> Result<TokenTable, TraceError> {
    let rows = total_rows(parts);
    let mut table = TokenTable {
        sequence: room(rows),
        position: room(rows),
        step: room(rows),
        phase: room(rows),
        token_id: room(rows),
        text: room(rows),
        domain: room(rows),
        domains: Vec::new(),
        logprob: room(rows),
    };
    let mut domains = Dictionary::new("domain");
    for_each_batch(
        parts,
        &TOKENS,
        |_| true,
        GROUPS_AT_ONCE,
        |batch| {
            batch.numbers::<UInt32Type>("sequence", &mut table.sequence)?;
            batch.numbers::<UInt32Type>("position", &mut table.position)?;
            batch.numbers::<UInt32Type>("step", &mut table.step)?;
            batch.phases(&mut table.phase)?;
            batch.numbers::<UInt32Type>("token_id", &mut table.token_id)?;
            batch.texts("text", |text| {
                table.text.push(text.to_string());
                Ok(())
            })?;
            domains.read(batch, &mut table.domain)?;
            batch.options::<Float32Type>("logprob", &mut table.logprob)
        },
    )?;
    table.domains = domains.names;
    Ok(table)
}

pub(crate) fn read_routing(
    parts: &[Part],
    fields: RoutingFields,
) -> Result<RoutingTable, TraceError> {
    let mut rows = RoutingRows::new(total_rows(parts), fields);
    for_each_batch(parts, &ROUTING, wanted(fields), rows.groups_at_once(), |batch| {
        rows.push(batch)
    })?;
    Ok(rows.finish())
}

/// Calls `each` with some row groups at a time, in order: fewer than where all become one table, since they
/// are what is held beside it.
pub(crate) fn each_routing<E: From<TraceError>>(
    parts: &[Part],
    fields: RoutingFields,
    mut each: impl FnMut(RoutingTable) -> Result<(), E>,
) -> Result<(), E> {
    let groups_at_once = RoutingRows::new(0, fields).groups_at_once().min(2);
    for_each_batch(parts, &ROUTING, wanted(fields), groups_at_once, |batch| {
        let mut rows = RoutingRows::new(batch.rows(), fields);
        rows.push(batch)?;
        each(rows.finish())
    })
}

/// Whether a column of `routing/` is read.
fn wanted(fields: RoutingFields) -> impl Fn(&str) -> bool {
    move |column| match column {
        "probs" => fields.probs,
        "output_norms" => fields.output_norms,
        _ => true,
    }
}

/// Rows of `routing/` as they are read.
struct RoutingRows {
    fields: RoutingFields,
    sequence: Vec<u32>,
    position: Vec<u32>,
    layer: Vec<u16>,
    experts: Flat<u16>,
    weights: Aligned,
    output_norms: Aligned,
    entropy: Gaps,
    margin: Gaps,
    probs: Flat<f32>,
    has_probs: bool,
}

impl RoutingRows {
    /// With room for `rows`.
    fn new(rows: usize, fields: RoutingFields) -> Self {
        Self {
            fields,
            sequence: room(rows),
            position: room(rows),
            layer: room(rows),
            experts: Flat::new(rows),
            weights: Aligned::new(rows),
            output_norms: Aligned::new(rows),
            entropy: Gaps::new(rows),
            margin: Gaps::new(rows),
            probs: Flat::new(rows),
            has_probs: false,
        }
    }

    /// A row of probabilities is as long as ten rows of everything else.
    fn groups_at_once(&self) -> usize {
        if self.fields.probs { 1 } else { GROUPS_AT_ONCE }
    }

    fn push(&mut self, batch: &Batch<'_>) -> Result<(), TraceError> {
        let start = self.sequence.len();
        batch.numbers::<UInt32Type>("sequence", &mut self.sequence)?;
        batch.numbers::<UInt32Type>("position", &mut self.position)?;
        batch.numbers::<UInt16Type>("layer", &mut self.layer)?;
        let experts = &mut self.experts;
        batch.lists::<UInt16Type>("experts", |chunk| {
            if chunk.nulls() > 0 {
                return Err(format!("{} null lists, expected none", chunk.nulls()));
            }
            experts.push(&chunk);
            Ok(())
        })?;
        let mut row = start;
        let weights = &mut self.weights;
        batch.lists::<Float32Type>("weights", |chunk| weights.push(&chunk, experts, &mut row))?;
        batch.gaps("entropy", &mut self.entropy)?;
        batch.gaps("margin", &mut self.margin)?;
        if self.fields.output_norms {
            let mut row = start;
            let norms = &mut self.output_norms;
            if batch.series("output_norms").is_some() {
                batch.lists::<Float32Type>("output_norms", |chunk| {
                    norms.push(&chunk, experts, &mut row)
                })?;
            } else {
                norms.skip(start..start + batch.rows(), experts);
            }
        }
        if self.fields.probs {
            let (probs, has_probs) = (&mut self.probs, &mut self.has_probs);
            if batch.series("probs").is_some() {
                batch.lists::<Float32Type>("probs", |chunk| {
                    *has_probs |= chunk.nulls() < chunk.rows();
                    probs.push(&chunk);
                    Ok(())
                })?;
            } else {
                probs.push_empty(batch.rows());
            }
        }
        Ok(())
    }

    fn finish(self) -> RoutingTable {
        let (experts, lists) = self.experts.finish();
        let has_probs = self.has_probs;
        let (probs, prob_lists) =
            if has_probs { self.probs.finish() } else { (Vec::new(), Lists::Fixed(0)) };
        RoutingTable {
            sequence: self.sequence,
            position: self.position,
            layer: self.layer,
            lists,
            experts,
            weights: self.weights.finish(),
            entropy: self.entropy.finish(),
            margin: self.margin.finish(),
            output_norms: self.output_norms.finish(),
            probs: has_probs.then_some(probs),
            prob_lists,
        }
    }
}

pub(crate) fn read_steps(parts: &[Part]) -> Result<StepTable, TraceError> {
    let mut table = StepTable::default();
    for_each_batch(
        parts,
        &STEPS,
        |_| true,
        GROUPS_AT_ONCE,
        |batch| {
            batch.numbers::<UInt32Type>("step", &mut table.step)?;
            batch.phases(&mut table.phase)?;
            batch.numbers::<UInt32Type>("batch", &mut table.batch)?;
            batch.numbers::<UInt32Type>("tokens", &mut table.tokens)?;
            batch.numbers::<UInt32Type>("context", &mut table.context)?;
            batch.numbers::<UInt64Type>("duration_ns", &mut table.duration_ns)?;
            batch.options::<UInt64Type>("device_ns", &mut table.device_ns)?;
            batch.options::<UInt64Type>("bytes_in_use", &mut table.bytes_in_use)?;
            batch.options::<UInt64Type>("bytes_reserved", &mut table.bytes_reserved)?;
            batch.options::<UInt64Type>("rss_bytes", &mut table.rss_bytes)
        },
    )?;
    Ok(table)
}

pub(crate) fn read_layers(parts: &[Part]) -> Result<LayerTable, TraceError> {
    let mut table = LayerTable::default();
    let mut components = Dictionary::new("component");
    for_each_batch(
        parts,
        &LAYERS,
        |_| true,
        GROUPS_AT_ONCE,
        |batch| {
            batch.numbers::<UInt32Type>("step", &mut table.step)?;
            batch.numbers::<UInt16Type>("layer", &mut table.layer)?;
            components.read(batch, &mut table.component)?;
            batch.numbers::<UInt64Type>("duration_ns", &mut table.duration_ns)
        },
    )?;
    table.components = components.names;
    Ok(table)
}
