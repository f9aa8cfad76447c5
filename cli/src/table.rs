//! Columns of text. Used by everything that lists; knows nothing about what it lists.

/// Which side of its column a cell keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// A head and rows of equally many cells.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let row: Vec<String> = cells.into_iter().collect();
        assert_eq!(row.len(), self.columns.len(), "a row has one cell for each column");
        self.rows.push(row);
    }

    /// The table as lines, each with its line end. Widths are counted in characters.
    pub(crate) fn render(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let mut rendered = String::new();
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                match self.columns[column].1 {
                    Side::Left => rendered.push_str(&format!("{cell:<width$}  ")),
                    Side::Right => rendered.push_str(&format!("{cell:>width$}  ")),
                }
            }
            text.push_str(rendered.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("NAME", Side::Left), ("LANES", Side::Right), ("NOTE", Side::Left)]);
        table.row(["berlin".to_owned(), "7".to_owned(), String::new()]);
        table.row(["осло".to_owned(), "1024".to_owned(), "x".to_owned()]);
        assert_eq!(table.render(), "NAME    LANES  NOTE\nberlin      7\nосло     1024  x\n");
    }
}
