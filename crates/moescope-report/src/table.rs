//! The table behind a figure, for both outputs.

use serde::Serialize;

/// Cells beyond which a table would make the page unwieldy; the rest is named, not shown.
const MAX_ROWS: usize = 400;

/// A table of finished cells.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    /// A sentence under the table.
    note: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Column {
    name: String,
    /// Right-aligned.
    number: bool,
}

impl Table {
    /// A table without columns and rows.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a column of text.
    pub(crate) fn text(mut self, name: &str) -> Self {
        self.columns.push(Column { name: name.into(), number: false });
        self
    }

    /// Adds a column of numbers.
    pub(crate) fn number(mut self, name: &str) -> Self {
        self.columns.push(Column { name: name.into(), number: true });
        self
    }

    /// Adds a row, a cell per column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// Puts a sentence under the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// Cuts a table nobody would read to its end; `analyze` prints all rows.
    pub(crate) fn trimmed(mut self) -> Self {
        if self.rows.len() > MAX_ROWS {
            let all = self.rows.len();
            self.rows.truncate(MAX_ROWS);
            self.note(format!(
                "The first {MAX_ROWS} of {} rows; `moescope analyze` prints them all.",
                crate::format::count(all as u64)
            ));
        }
        self
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
