//! Tables and numbers in Markdown. Pure.

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(header: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Appends a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table in Markdown.
    pub fn to_markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule = format!("|{}\n", "---|".repeat(self.header.len()));
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{rule}{rows}", line(&self.header))
    }
}

/// A number with about three digits.
pub fn number(value: f64) -> String {
    let text = match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.3}"),
        _ => "0".to_owned(),
    };
    if value >= 1000.0 { group(&text) } else { text }
}

/// A duration in seconds.
pub fn duration(seconds: f64) -> String {
    format!("{} s", number(seconds))
}

/// An integer with separators of thousands.
pub fn integer(value: u64) -> String {
    group(&value.to_string())
}

/// Bytes as mebibytes.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1_048_576.0)
}

fn group(digits: &str) -> String {
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let texts: Vec<_> = [0.0, 0.0123, 4.567, 45.67, 456.7, 45_678.9].map(number).into();
        assert_eq!(texts, ["0", "0.012", "4.57", "45.7", "457", "45,679"]);
        assert_eq!((integer(999), integer(1_234_567)), ("999".into(), "1,234,567".into()));
        assert_eq!(mebibytes(3 << 19), "1.5");
    }

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(["jobs", "jobs/s"]);
        assert!(table.is_empty());
        table.row(["100", "7"]);
        assert_eq!(table.to_markdown(), "| jobs | jobs/s |\n|---|---|\n| 100 | 7 |\n");
    }
}
