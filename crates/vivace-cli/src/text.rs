//! How the commands write for terminals: tables, sizes, durations, and a mark below what is wrong in a query. Texts that come from
//! spans have no control characters and no line ends in tables.

use std::fmt::Write as _;

/// A table: columns as wide as their widest cell, two spaces between them, the last one ragged.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    out
}

/// A duration as people read it: three digits, `12.3ms`.
pub(crate) fn duration(nanos: u64) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        1_000_000_000..60_000_000_000 => (nanos as f64 / 1e9, "s"),
        _ => {
            let seconds = nanos / 1_000_000_000;
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            return if hours > 0 { format!("{hours}h{minutes:02}m") } else { format!("{minutes}m{seconds:02}s") };
        }
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

/// A number of bytes as people read it.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let digits = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `1 span`, `2 spans`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first characters of a text, control characters and line ends as spaces.
pub(crate) fn short(text: &str, width: usize) -> String {
    let clean: Vec<char> = one_line(text).chars().collect();
    if clean.len() <= width {
        return clean.into_iter().collect();
    }
    clean.into_iter().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A text with control characters and line ends as spaces.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A query with a mark below the place that is wrong. Lines and columns count from 1.
pub(crate) fn pointed(query: &str, line: usize, column: usize, reason: &str) -> String {
    let text = query.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    // Tabs stay tabs, so that the mark stands where it should.
    let pad: String =
        text.chars().chain(std::iter::repeat(' ')).take(column.saturating_sub(1)).map(|c| if c == '\t' { c } else { ' ' }).collect();
    format!("this is no TraceQL: {reason}\n\n  {text}\n  {pad}^")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        let durations = [999, 1_500, 2_570_000, 598_000_000, 12_345_000_000, 61_000_000_000, 7_260_000_000_000];
        assert_eq!(durations.map(duration), ["999ns", "1.50µs", "2.57ms", "598ms", "12.3s", "1m01s", "2h01m"]);
        assert_eq!([0, 1023, 1536, 200 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "200 MiB"]);
    }

    #[test]
    fn the_mark_stands_below_the_column() {
        let query = "{ name = }";
        assert_eq!(pointed(query, 1, 10, "expected a value"), "this is no TraceQL: expected a value\n\n  { name = }\n           ^");
    }
}
