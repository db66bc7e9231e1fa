//! The columns of the four tables, schema version 1: one list that writer, reader and documentation share.
//!
//! Changing a name or a type here changes the layout: raise [`SCHEMA_VERSION`](crate::SCHEMA_VERSION).

use polars::prelude::{DataType, Schema};

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Unsigned, 16 bits.
    U16,
    /// Unsigned, 32 bits.
    U32,
    /// Unsigned, 64 bits.
    U64,
    /// Float, 32 bits.
    F32,
    /// Float, 64 bits.
    F64,
    /// UTF-8 text.
    Text,
    /// List of unsigned 16-bit numbers.
    ListU16,
    /// List of 32-bit floats.
    ListF32,
}

impl Kind {
    /// The polars type.
    pub fn dtype(self) -> DataType {
        match self {
            Kind::U16 => DataType::UInt16,
            Kind::U32 => DataType::UInt32,
            Kind::U64 => DataType::UInt64,
            Kind::F32 => DataType::Float32,
            Kind::F64 => DataType::Float64,
            Kind::Text => DataType::String,
            Kind::ListU16 => DataType::List(Box::new(DataType::UInt16)),
            Kind::ListF32 => DataType::List(Box::new(DataType::Float32)),
        }
    }
}

/// What a column may leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There, and never null.
    Always,
    /// There, null where unknown.
    Nullable,
    /// The column itself may be absent from a part, which reads as null.
    Optional,
}

/// One column of a table.
#[derive(Clone, Copy, Debug)]
pub struct ColumnSpec {
    /// Name in the file.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Whether it may be null or absent.
    pub presence: Presence,
}

/// One table: a folder of parts with the same columns.
#[derive(Clone, Copy, Debug)]
pub struct TableSpec {
    /// Folder in the run directory.
    pub folder: &'static str,
    /// Columns in order.
    pub columns: &'static [ColumnSpec],
}

pub(crate) const fn column(name: &'static str, kind: Kind) -> ColumnSpec {
    ColumnSpec { name, kind, presence: Presence::Always }
}

pub(crate) const fn nullable(name: &'static str, kind: Kind) -> ColumnSpec {
    ColumnSpec { name, kind, presence: Presence::Nullable }
}

const fn optional(name: &'static str, kind: Kind) -> ColumnSpec {
    ColumnSpec { name, kind, presence: Presence::Optional }
}

/// One row per token the model read; see [`TokenColumns`](crate::TokenColumns).
pub const TOKENS: TableSpec = TableSpec {
    folder: "tokens",
    columns: &[
        column("sequence", Kind::U32),
        column("position", Kind::U32),
        column("step", Kind::U32),
        column("phase", Kind::Text),
        column("token_id", Kind::U32),
        column("text", Kind::Text),
        column("domain", Kind::Text),
        nullable("logprob", Kind::F32),
    ],
};

/// One row per token and MoE layer; see [`RoutingColumns`](crate::RoutingColumns).
pub const ROUTING: TableSpec = TableSpec {
    folder: "routing",
    columns: &[
        column("sequence", Kind::U32),
        column("position", Kind::U32),
        column("layer", Kind::U16),
        column("experts", Kind::ListU16),
        nullable("weights", Kind::ListF32),
        nullable("entropy", Kind::F32),
        nullable("margin", Kind::F32),
        optional("probs", Kind::ListF32),
        optional("output_norms", Kind::ListF32),
    ],
};

/// One row per forward pass; see [`StepColumns`](crate::StepColumns).
pub const STEPS: TableSpec = TableSpec {
    folder: "steps",
    columns: &[
        column("step", Kind::U32),
        column("phase", Kind::Text),
        column("batch", Kind::U32),
        column("tokens", Kind::U32),
        column("context", Kind::U32),
        column("duration_ns", Kind::U64),
        nullable("device_ns", Kind::U64),
        nullable("bytes_in_use", Kind::U64),
        nullable("bytes_reserved", Kind::U64),
        nullable("rss_bytes", Kind::U64),
    ],
};

/// One row per forward pass, layer and component; see [`LayerColumns`](crate::LayerColumns).
pub const LAYERS: TableSpec = TableSpec {
    folder: "layers",
    columns: &[
        column("step", Kind::U32),
        column("layer", Kind::U16),
        column("component", Kind::Text),
        column("duration_ns", Kind::U64),
    ],
};

/// All tables of a run.
pub const TABLES: &[TableSpec] = &[TOKENS, ROUTING, STEPS, LAYERS];

impl TableSpec {
    /// The polars schema of the columns that every part has.
    pub fn schema(&self) -> Schema {
        self.columns
            .iter()
            .filter(|column| column.presence != Presence::Optional)
            .map(|column| (column.name.into(), column.kind.dtype()))
            .collect()
    }
}
