//! Columns in memory to data frames and Parquet bytes.

use polars::polars_utils::compression::ZstdLevel;
use polars::prelude::*;

use crate::columns::{LayerColumns, Phase, RoutingColumns, StepColumns, TokenColumns};
use crate::error::TraceError;
use crate::schema::{LAYERS, ROUTING, STEPS, TOKENS};

/// Rows per row group: small enough that a reader holds one group at a time, large enough that dictionaries
/// and compression pay.
pub(crate) const ROW_GROUP_ROWS: usize = 256 * 1024;

/// A table's data frame, or the column whose length does not fit.
pub(crate) trait ToFrame {
    /// Rows in the batch.
    fn rows(&self) -> usize;
    /// The batch as a data frame with the columns of its [`TableSpec`](crate::schema::TableSpec).
    fn to_frame(&self) -> Result<DataFrame, TraceError>;
}

/// Collects columns and refuses those that do not cover every row.
struct FrameBuilder {
    table: &'static str,
    rows: usize,
    columns: Vec<Column>,
}

impl FrameBuilder {
    fn new(table: &'static str, rows: usize) -> Self {
        Self { table, rows, columns: Vec::new() }
    }

    fn check(&self, column: &'static str, found: usize, expected: usize) -> Result<(), TraceError> {
        if found == expected {
            return Ok(());
        }
        Err(TraceError::ColumnLength { table: self.table, column, found, expected })
    }

    fn push<T>(&mut self, name: &'static str, values: &[T]) -> Result<(), TraceError>
    where
        Series: for<'a> NamedFrom<&'a [T], [T]>,
    {
        self.check(name, values.len(), self.rows)?;
        self.columns.push(Series::new(name.into(), values).into_column());
        Ok(())
    }

    /// A column that is empty where nothing was recorded.
    fn push_or_null(&mut self, name: &'static str, values: &[f32]) -> Result<(), TraceError> {
        if values.is_empty() {
            self.columns.push(Column::full_null(name.into(), self.rows, &DataType::Float32));
            return Ok(());
        }
        self.push(name, values)
    }

    fn push_text<'a>(
        &mut self,
        name: &'static str,
        values: impl ExactSizeIterator<Item = &'a str>,
    ) -> Result<(), TraceError> {
        self.check(name, values.len(), self.rows)?;
        self.columns.push(StringChunked::from_iter_values(name.into(), values).into_column());
        Ok(())
    }

    /// A list column from `width` values per row. The builder copies slices; there is no series per row.
    fn push_lists<T: PolarsNumericType>(
        &mut self,
        name: &'static str,
        values: &[T::Native],
        width: usize,
    ) -> Result<(), TraceError> {
        self.check(name, values.len(), self.rows * width)?;
        let mut builder = ListPrimitiveChunkedBuilder::<T>::new(
            name.into(),
            self.rows,
            values.len(),
            T::get_static_dtype(),
        );
        for row in 0..self.rows {
            builder.append_slice(&values[row * width..(row + 1) * width]);
        }
        self.columns.push(builder.finish().into_column());
        Ok(())
    }

    fn finish(self) -> Result<DataFrame, TraceError> {
        DataFrame::new(self.rows, self.columns)
            .map_err(|source| TraceError::polars(self.table.as_ref(), "build table", source))
    }
}

fn phase_names(phases: &[Phase]) -> impl ExactSizeIterator<Item = &'static str> {
    phases.iter().map(|phase| phase.as_str())
}

impl ToFrame for TokenColumns {
    fn rows(&self) -> usize {
        self.sequence.len()
    }

    fn to_frame(&self) -> Result<DataFrame, TraceError> {
        let mut frame = FrameBuilder::new(TOKENS.folder, self.rows());
        frame.push("sequence", &self.sequence)?;
        frame.push("position", &self.position)?;
        frame.push("step", &self.step)?;
        frame.push_text("phase", phase_names(&self.phase))?;
        frame.push("token_id", &self.token_id)?;
        frame.push_text("text", self.text.iter().map(String::as_str))?;
        frame.push_text("domain", self.domain.iter().map(String::as_str))?;
        frame.push("logprob", &self.logprob)?;
        frame.finish()
    }
}

impl ToFrame for RoutingColumns {
    fn rows(&self) -> usize {
        self.sequence.len()
    }

    fn to_frame(&self) -> Result<DataFrame, TraceError> {
        let mut frame = FrameBuilder::new(ROUTING.folder, self.rows());
        frame.push("sequence", &self.sequence)?;
        frame.push("position", &self.position)?;
        frame.push("layer", &self.layer)?;
        frame.push_lists::<UInt16Type>("experts", &self.experts, self.top_k)?;
        if self.weights.is_empty() {
            let lists = DataType::List(Box::new(DataType::Float32));
            frame.columns.push(Column::full_null("weights".into(), frame.rows, &lists));
        } else {
            frame.push_lists::<Float32Type>("weights", &self.weights, self.top_k)?;
        }
        frame.push_or_null("entropy", &self.entropy)?;
        frame.push_or_null("margin", &self.margin)?;
        if let Some(probs) = &self.probs {
            frame.push_lists::<Float32Type>("probs", probs, self.experts_total)?;
        }
        if let Some(norms) = &self.output_norms {
            frame.push_lists::<Float32Type>("output_norms", norms, self.top_k)?;
        }
        frame.finish()
    }
}

impl ToFrame for StepColumns {
    fn rows(&self) -> usize {
        self.step.len()
    }

    fn to_frame(&self) -> Result<DataFrame, TraceError> {
        let mut frame = FrameBuilder::new(STEPS.folder, self.rows());
        frame.push("step", &self.step)?;
        frame.push_text("phase", phase_names(&self.phase))?;
        frame.push("batch", &self.batch)?;
        frame.push("tokens", &self.tokens)?;
        frame.push("context", &self.context)?;
        frame.push("duration_ns", &self.duration_ns)?;
        frame.push("device_ns", &self.device_ns)?;
        frame.push("bytes_in_use", &self.bytes_in_use)?;
        frame.push("bytes_reserved", &self.bytes_reserved)?;
        frame.push("rss_bytes", &self.rss_bytes)?;
        frame.finish()
    }
}

impl ToFrame for LayerColumns {
    fn rows(&self) -> usize {
        self.step.len()
    }

    fn to_frame(&self) -> Result<DataFrame, TraceError> {
        let mut frame = FrameBuilder::new(LAYERS.folder, self.rows());
        frame.push("step", &self.step)?;
        frame.push("layer", &self.layer)?;
        frame.push_text("component", self.component.iter().copied())?;
        frame.push("duration_ns", &self.duration_ns)?;
        frame.finish()
    }
}

/// A data frame as the bytes of one Parquet file.
///
/// In memory rather than into the file, so that an error of the disk is told from one of the encoder. On one
/// thread: the other cores belong to the model that is being measured.
pub(crate) fn to_parquet(frame: &mut DataFrame) -> PolarsResult<Vec<u8>> {
    let mut bytes = Vec::new();
    ParquetWriter::new(&mut bytes)
        // Level 1: a third faster than the default level 3 here, and the same size.
        .with_compression(ParquetCompression::Zstd(ZstdLevel::try_new(1).ok()))
        .with_statistics(StatisticsOptions::default())
        .with_row_group_size(Some(ROW_GROUP_ROWS))
        .set_parallel(false)
        .finish(frame)?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::schema::Presence;

    #[test]
    fn frames_have_the_schema_of_their_table() {
        let frames = [
            (TOKENS, TokenColumns::default().to_frame().unwrap()),
            (ROUTING, RoutingColumns::default().to_frame().unwrap()),
            (STEPS, StepColumns::default().to_frame().unwrap()),
            (LAYERS, LayerColumns::default().to_frame().unwrap()),
        ];
        for (table, frame) in frames {
            assert_eq!(**frame.schema(), table.schema(), "{}", table.folder);
        }
    }

    #[test]
    fn optional_columns_follow_the_required_ones() {
        let columns = RoutingColumns {
            probs: Some(Vec::new()),
            output_norms: Some(Vec::new()),
            ..Default::default()
        };
        let frame = columns.to_frame().unwrap();
        let expected: Vec<_> = ROUTING.columns.iter().map(|column| column.name).collect();
        assert_eq!(frame.get_column_names(), expected);
        assert_eq!(ROUTING.columns.iter().filter(|c| c.presence == Presence::Optional).count(), 2);
    }

    #[test]
    fn a_short_column_is_named() {
        let columns = RoutingColumns {
            sequence: vec![0, 0],
            position: vec![0, 1],
            layer: vec![0, 0],
            top_k: 2,
            experts: vec![1, 2, 3],
            ..Default::default()
        };
        let error = columns.to_frame().unwrap_err().to_string();
        assert!(error.contains("`experts` has 3 values, expected 4"), "{error}");
    }
}
