//! Aligned tables.

use std::fmt;

/// Rows of text in aligned columns; columns of numbers are aligned right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table with these headings.
    #[must_use]
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(head) = self.rows.first() else { return Ok(()) };
        let column = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let widths: Vec<usize> = (0..head.len())
            .map(|at| column(at).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let right: Vec<bool> = (0..head.len())
            .map(|at| {
                column(at)
                    .skip(1)
                    .all(|cell| cell.is_empty() || cell.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, &width), &right) in row.iter().zip(&widths).zip(&right) {
                let cell =
                    if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            writeln!(f, "{}", line.trim_end())?;
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
                writeln!(f, "{}", rule.join("  ").trim_end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["step", "passed", "time"]);
        table.row(["format".into(), "1".into(), "0.8 s".into()]);
        table.row(["root tests".into(), "123".into(), "61.0 s".into()]);
        let expected = "\
step        passed    time
----------  ------  ------
format           1   0.8 s
root tests     123  61.0 s
";
        assert_eq!(table.to_string(), expected);
    }
}
