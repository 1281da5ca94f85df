//! Figures of interleaved rounds, and the tables of their medians.

use std::fmt::Write as _;

/// One subject: a row for each proxy, columns that several cases fill.
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
    notes: Vec<String>,
}

enum Cell {
    Figures(Vec<f64>),
    Text(String),
}

impl Table {
    pub(crate) fn new(title: &str, columns: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let columns = columns.into_iter().map(Into::into).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new(), notes: Vec::new() }
    }

    fn row(&mut self, name: &str) -> &mut Vec<Cell> {
        let at = self.rows.iter().position(|(row, _)| row == name).unwrap_or_else(|| {
            let empty = self.columns.iter().map(|_| Cell::Figures(Vec::new())).collect();
            self.rows.push((name.to_owned(), empty));
            self.rows.len() - 1
        });
        &mut self.rows[at].1
    }

    /// Adds one round's figures, from this column on.
    pub(crate) fn add(&mut self, name: &str, first: usize, figures: &[f64]) {
        for (cell, figure) in self.row(name)[first..].iter_mut().zip(figures) {
            if let Cell::Figures(all) = cell {
                all.push(*figure);
            }
        }
    }

    pub(crate) fn say(&mut self, name: &str, words: &[&str]) {
        for (cell, word) in self.row(name).iter_mut().zip(words) {
            *cell = Cell::Text((*word).to_owned());
        }
    }

    /// Said once below the table.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn print(&self) -> String {
        let mut text = format!("## {}\n\n| |", self.title);
        for column in &self.columns {
            let _ = write!(text, " {column} |");
        }
        let _ = write!(text, "\n|---|{}\n", "---|".repeat(self.columns.len()));
        for (name, cells) in &self.rows {
            let _ = write!(text, "| {name} |");
            for cell in cells {
                let _ = write!(text, " {} |", cell.print());
            }
            text.push('\n');
        }
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        text.push('\n');
        text
    }
}

impl Cell {
    fn print(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Figures(figures) => median(figures).map_or_else(|| "–".to_owned(), print),
        }
    }
}

pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut figures: Vec<f64> = figures.iter().copied().filter(|figure| figure.is_finite()).collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        length if length % 2 == 0 => Some(f64::midpoint(figures[middle - 1], figures[middle])),
        _ => Some(figures[middle]),
    }
}

/// Three figures, or all of a whole number, in thousands.
fn print(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => thousands(figure.round() as i64),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn thousands(number: i64) -> String {
    let digits = number.abs().to_string();
    let mut text = String::from(if number < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
