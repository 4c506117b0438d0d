//! Scores, and tables of them over repeated runs.

use serde::{Deserialize, Serialize};

/// One number that a metric found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// As its metric records it.
    pub name: String,
    /// In the unit that its metric says.
    pub value: f64,
    /// Samples, images or draws that it was computed from.
    pub count: usize,
    /// Where the true value lies with 95% confidence, as far as the metric can say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// The true value is larger than this: what it counts was not reached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub at_least: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Score {
    /// A score without an interval.
    pub fn new(name: &str, value: f64, count: usize) -> Self {
        Self {
            name: name.into(),
            value,
            count,
            interval: None,
            at_least: false,
        }
    }

    /// The value as [`Spread::text`] writes it.
    pub fn text(&self) -> String {
        bounded(plain(self.value), self.at_least)
    }

    /// The score with the interval in which the true value lies with 95% confidence.
    pub fn with_interval(self, interval: [f64; 2]) -> Self {
        Self {
            interval: Some(interval),
            ..self
        }
    }
}

/// Mean and sample standard deviation (n - 1) of repeated runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Over the runs.
    pub mean: f64,
    /// `None` of a single run.
    pub deviation: Option<f64>,
    /// Runs.
    pub count: usize,
}

impl Spread {
    /// Of nothing: `None`.
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        let deviation = (count > 1).then(|| (squares.sum::<f64>() / (count - 1) as f64).sqrt());
        Some(Self {
            mean,
            deviation,
            count,
        })
    }

    /// `mean +- deviation`, with as many digits as four figures of the mean take.
    pub fn text(&self) -> String {
        let digits = match self.mean.abs() {
            0.0 => 1,
            size => (3 - size.log10().floor() as i64).clamp(0, 5) as usize,
        };
        match self.deviation {
            Some(deviation) => format!("{:.digits$} ± {deviation:.digits$}", self.mean),
            None => format!("{:.digits$}", self.mean),
        }
    }
}

/// A value as [`Spread::text`] writes it.
pub fn plain(value: f64) -> String {
    Spread::of(&[value]).map_or_else(String::new, |spread| spread.text())
}

/// A value in words, with the mark of one that the true value is larger than.
pub fn bounded(text: String, at_least: bool) -> String {
    match at_least {
        true => format!("> {text}"),
        false => text,
    }
}

/// Rows of cells under headings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// One for each column.
    pub headings: Vec<String>,
    /// One cell for each heading.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// For files: Markdown. A cell's own `|` is escaped.
    pub fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = line(&self.headings);
        text.push_str(&line(&vec!["---".to_string(); self.headings.len()]));
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }

    /// The characters that each column needs.
    fn widths(&self) -> Vec<usize> {
        let all = || std::iter::once(&self.headings).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..self.headings.len()).map(width).collect()
    }

    /// As [`plain`](Self::plain) in lines of at most `width` characters, if a column fits at all: the columns that do
    /// not fit beside the others follow below, each time after the first one.
    pub fn within(&self, width: usize) -> String {
        let widths = self.widths();
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let mut used = 0;
        for (column, columns) in widths.iter().enumerate().skip(1) {
            let needed = columns + 2;
            match parts.last_mut() {
                Some(part) if used + needed <= width => part.push(column),
                _ => {
                    used = widths[0];
                    parts.push(vec![0, column]);
                }
            }
            used += needed;
        }
        let parts = parts.iter().map(|part| {
            let pick = |row: &Vec<String>| part.iter().map(|&column| row[column].clone()).collect();
            let table = Self {
                headings: pick(&self.headings),
                rows: self.rows.iter().map(pick).collect(),
            };
            table.plain()
        });
        parts.collect::<Vec<_>>().join("\n")
    }

    /// For a terminal: columns as wide as they need, the first to the left and the others to the right.
    pub fn plain(&self) -> String {
        let all = || std::iter::once(&self.headings).chain(&self.rows);
        let widths = self.widths();
        let mut text = String::new();
        for row in all() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                if column == 0 {
                    text.push_str(&format!("{cell:<width$}"));
                } else {
                    text.push_str(&format!("  {cell:>width$}"));
                }
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_runs_is_their_sample_deviation() {
        let spread = Spread::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((spread.mean, spread.count), (3.0, 3));
        assert!((spread.deviation.unwrap() - 7f64.sqrt()).abs() < 1e-12);
        assert_eq!(spread.text(), "3.000 ± 2.646");
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[0.0]).unwrap().text(), "0.0");
        assert_eq!(Spread::of(&[1234.5]).unwrap().text(), "1234");
        assert_eq!(Spread::of(&[0.00551]).unwrap().text(), "0.00551");
    }

    #[test]
    fn tables_line_up_and_escape() {
        let table = Table {
            headings: vec!["method".into(), "a|b".into()],
            rows: vec![vec!["siss".into(), "1.0 ± 2.0".into()]],
        };
        assert_eq!(
            table.markdown(),
            "| method | a\\|b |\n| --- | --- |\n| siss | 1.0 ± 2.0 |\n"
        );
        assert_eq!(table.plain(), "method        a|b\nsiss    1.0 ± 2.0\n");
    }

    #[test]
    fn what_does_not_fit_beside_the_others_follows_below() {
        let row = |cells: [&str; 4]| cells.map(String::from).to_vec();
        let table = Table {
            headings: row(["method", "copies", "nll", "fid"]),
            rows: vec![row(["siss", "0.1", "3.25", "11.0"])],
        };
        assert_eq!(table.within(80), table.plain());
        assert_eq!(
            table.within(20),
            "method  copies   nll\nsiss       0.1  3.25\n\nmethod   fid\nsiss    11.0\n"
        );
        // Every column is somewhere, however narrow.
        assert_eq!(table.within(1).lines().count(), 8);
    }
}
