//! Tables of numbers as colours, with the bar that explains them.

use std::collections::BTreeMap;

use super::scale::whole_ticks;
use super::{Align, Canvas, Marker, SMALL, fit, text_width, two_lines};
use crate::data::Grid;
use crate::palette::{DIVERGING_LEVELS, Ink, SEQUENTIAL_LEVELS};

/// How values become colours.
#[derive(Clone, Debug)]
pub(crate) struct Colours {
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// By logarithm; values of 0 take the lowest colour.
    pub(crate) log: bool,
    /// Symmetric about zero, with two hues.
    pub(crate) diverging: bool,
    /// Values and labels under the bar.
    pub(crate) ticks: Vec<(f64, String)>,
    /// What the colours mean, with the unit.
    pub(crate) title: String,
    /// A value that is marked with ▼ on the bar, such as a chance level; the title says what it is.
    pub(crate) mark: Option<f64>,
}

impl Colours {
    fn share(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(1e-300).ln() - self.low.ln()) / (self.high.ln() - self.low.ln())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }

    fn level(&self, share: f64) -> Ink {
        let level = |levels: u8| (share * f64::from(levels - 1)).round() as u8;
        if self.diverging {
            Ink::Diverging(level(DIVERGING_LEVELS))
        } else {
            Ink::Sequential(level(SEQUENTIAL_LEVELS))
        }
    }

    /// The ink of a value.
    pub(crate) fn ink(&self, value: f64) -> Ink {
        if value.is_finite() { self.level(self.share(value)) } else { Ink::Missing }
    }

    /// The ink of the minus sign on a value: half way from zero to the end of a diverging scale is 0.25.
    fn sign(&self, value: f64) -> Option<Ink> {
        let share = self.share(value);
        let signed = self.diverging && value.is_finite() && share <= 0.375;
        signed.then_some(if share < PALE { Ink::Paper } else { Ink::Text })
    }

    /// Draws the bar with its title; returns the height used.
    pub(crate) fn bar(&self, canvas: &Canvas<'_>, from: f64) -> f64 {
        const STEPS: usize = 60;
        let mut top = from;
        for line in two_lines(&self.title, SMALL, canvas.width) {
            canvas.text(0.0, top + 12.0, &line, SMALL, Ink::Muted, Align::Left);
            top += 15.0;
        }
        let above = if self.mark.is_some() { 8.0 } else { 0.0 };
        top += above;
        let (x, y, w, h) = (1.0, top + 5.0, canvas.width.min(300.0) - 2.0, 10.0);
        for step in 0..STEPS {
            let share = step as f64 / (STEPS - 1) as f64;
            let width = w / STEPS as f64;
            canvas.rect(x + step as f64 * width, y, width, h, self.level(share));
        }
        canvas.frame(x, y, w, h, Ink::Axis);
        if let Some(value) = self.mark {
            let at = (x + self.share(value) * w).max(4.5);
            canvas.marker(at, y - 4.5, 8.0, Marker::TriangleDown, Ink::Text);
        }
        let mut free_from = f64::NEG_INFINITY;
        for (value, label) in &self.ticks {
            let at = x + self.share(*value) * w;
            canvas.line(&[(at, y + h), (at, y + h + 4.0)], Ink::Axis, 1.0);
            let half = text_width(label, SMALL) / 2.0;
            let middle = at.clamp(half, canvas.width - half);
            if middle - half >= free_from {
                canvas.text(middle, y + h + 16.0, label, SMALL, Ink::Muted, Align::Centre);
                free_from = middle + half + 5.0;
            }
        }
        top - from + 39.0
    }
}

/// Share of a diverging scale from which its blue is pale enough for a sign in the colour of the text.
const PALE: f64 = 0.2;

/// Where a heatmap goes and what it says.
pub(crate) struct Heatmap<'g> {
    pub(crate) grid: &'g Grid,
    pub(crate) colours: &'g Colours,
    /// Column names; `None` numbers them from 0.
    pub(crate) columns: Option<&'g [String]>,
    /// Under the columns.
    pub(crate) x_title: &'g str,
    /// Above the row names.
    pub(crate) y_title: &'g str,
    /// Whether rows bear the names of the columns beside their own.
    pub(crate) numbered: bool,
}

/// Height of column labels and title below a heatmap, and of the row title above.
const FOOT: f64 = 36.0;
const HEAD: f64 = 21.0;

impl Heatmap<'_> {
    /// Draws the map with its labels; `cell` is the height of a row. Returns the height used.
    pub(crate) fn draw(&self, canvas: &Canvas<'_>, x: f64, top: f64, w: f64, cell: f64) -> f64 {
        let (rows, columns) = (self.grid.rows.len(), self.grid.columns);
        // By itself, so that no long name cuts it and no right-to-left name turns it around.
        let number = match self.columns {
            Some(columns) if self.numbered => columns,
            _ => &[],
        };
        let numbers = number.iter().map(|n| text_width(n, SMALL)).fold(0.0, f64::max);
        let numbers = if numbers > 0.0 { numbers + 6.0 } else { 0.0 };
        let label_room = w * 0.4 - numbers;
        let names: Vec<String> =
            self.grid.rows.iter().map(|name| fit(name, SMALL, label_room)).collect();
        let widest = names.iter().map(|name| text_width(name, SMALL)).fold(0.0, f64::max);
        let left = x + widest.max(14.0) + 7.0 + numbers;
        let (top, width, height) = (top + HEAD, x + w - left - 1.0, cell * rows as f64);
        canvas.text(x, top - 9.0, self.y_title, SMALL, Ink::Muted, Align::Left);

        // Cells of one colour together: the SVG backend draws each colour as one path.
        let mut by_ink: BTreeMap<Ink, Vec<(usize, usize, usize)>> = BTreeMap::new();
        for row in 0..rows {
            let inks: Vec<Ink> = self.grid.row(row).iter().map(|&v| self.colours.ink(v)).collect();
            let mut start = 0;
            while start < columns {
                let ink = inks[start];
                let end = inks[start..].iter().position(|other| *other != ink);
                let end = end.map_or(columns, |length| start + length);
                by_ink.entry(ink).or_default().push((row, start, end));
                start = end;
            }
        }
        let column = |n: usize| left + width * n as f64 / columns as f64;
        for (ink, cells) in by_ink {
            for (row, start, end) in cells {
                let (from, to) = (column(start), column(end));
                canvas.rect(from, top + row as f64 * cell, to - from, cell, ink);
            }
        }
        self.minus_signs(canvas, (left, top), width / columns.max(1) as f64, cell);
        canvas.frame(left, top, width, height, Ink::Axis);

        // Rows are named as densely as the text allows.
        let fitting = (height / 14.0).floor().max(1.0) as usize;
        let every = rows.div_ceil(fitting).max(1);
        for (row, name) in names.iter().enumerate().step_by(nice_every(every)) {
            let y = top + (row as f64 + 0.5) * cell + 4.0;
            canvas.text(left - 5.0 - numbers, y, name, SMALL, Ink::Muted, Align::Right);
            if let Some(number) = number.get(row) {
                canvas.text(left - 5.0, y, number, SMALL, Ink::Text, Align::Right);
            }
        }
        let bottom = top + height;
        let widest_column = match self.columns {
            Some(names) => names.iter().map(|n| text_width(n, SMALL)).fold(0.0, f64::max),
            None => text_width(&columns.saturating_sub(1).to_string(), SMALL),
        };
        let air = if self.columns.is_some() { 2.5 } else { 8.0 };
        let fitting = (width / (widest_column + air)).floor().max(1.0) as usize;
        let labelled: Vec<usize> = match self.columns {
            Some(_) => (0..columns).step_by(nice_every(columns.div_ceil(fitting))).collect(),
            None => {
                whole_ticks(0, columns.saturating_sub(1) as u32, fitting.saturating_sub(1).max(1))
                    .into_iter()
                    .map(|n| n as usize)
                    .collect()
            }
        };
        for n in labelled {
            let label = match self.columns {
                Some(names) => names[n].clone(),
                None => n.to_string(),
            };
            let middle = column(n) + width / columns as f64 / 2.0;
            if middle + text_width(&label, SMALL) / 2.0 > x + w {
                continue;
            }
            canvas.line(&[(middle, bottom), (middle, bottom + 3.0)], Ink::Axis, 1.0);
            canvas.text(middle, bottom + 15.0, &label, SMALL, Ink::Muted, Align::Centre);
        }
        let title = fit(self.x_title, SMALL, w);
        let half = text_width(&title, SMALL) / 2.0;
        let middle = (left + width / 2.0).min(x + w - half);
        canvas.text(middle, bottom + 30.0, &title, SMALL, Ink::Muted, Align::Centre);
        HEAD + height + FOOT
    }
}

impl Heatmap<'_> {
    /// Marks what is clearly below zero, where cells have room for it: in grey, light blue and light orange
    /// are alike. The sign has the colour of the text where the cell is pale, that of the paper where not.
    fn minus_signs(&self, canvas: &Canvas<'_>, (left, top): (f64, f64), w: f64, h: f64) {
        /// Sides of the smallest cell with a sign.
        const ROOM: f64 = 7.0;
        if w < ROOM || h < ROOM {
            return;
        }
        for (at, &value) in self.grid.values.iter().enumerate() {
            if let Some(sign) = self.colours.sign(value) {
                let (row, column) = (at / self.grid.columns, at % self.grid.columns);
                let (x, y) = (left + (column as f64 + 0.5) * w, top + (row as f64 + 0.5) * h);
                let half = (w * 0.22).min(3.5);
                canvas.line(&[(x - half, y), (x + half, y)], sign, 1.2);
            }
        }
    }
}

/// 1, 2, 5, 10, ...: the smallest that is at least `every`.
fn nice_every(every: usize) -> usize {
    [1, 2, 5, 10, 20, 50, 100].into_iter().find(|nice| *nice >= every).unwrap_or(every)
}

/// Height of a row so that a map of `rows` rows is pleasant: neither a smear nor a wall.
pub(crate) fn cell_height(rows: usize, whole: f64) -> f64 {
    (whole / rows.max(1) as f64).clamp(3.0, 22.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::contrast;

    #[test]
    fn minus_signs_stand_out_from_their_cells() {
        let colours = Colours {
            low: -1.0,
            high: 1.0,
            log: false,
            diverging: true,
            ticks: vec![],
            title: String::new(),
            mark: None,
        };
        let mut signed = 0;
        for value in (-100..=100).map(|n| f64::from(n) / 100.0) {
            let Some(sign) = colours.sign(value) else {
                assert!(value > -0.25, "{value} bears no sign");
                continue;
            };
            assert!(value < 0.0);
            signed += 1;
            let cell = colours.ink(value);
            assert!(contrast(sign.light(), cell.light()) >= 3.0, "{value} on light paper");
            assert!(contrast(sign.dark(), cell.dark()) >= 3.0, "{value} on a dark page");
        }
        assert_eq!(signed, 76);
        assert_eq!(colours.sign(f64::NAN), None);
    }
}
