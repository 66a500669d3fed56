//! The last lines of a worker's log, within bounds. Pure.

use std::collections::VecDeque;

/// Maximum number of lines.
const MAX_LINES: usize = 200;
/// Maximum length of a line in bytes.
const MAX_LINE_BYTES: usize = 2048;
/// Maximum length of all lines in bytes.
const MAX_BYTES: usize = 128 << 10;

/// The last lines of a log.
#[derive(Debug, Default)]
pub(super) struct LogTail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogTail {
    /// Adds a line without its line break, and drops what no longer fits.
    pub(super) fn push(&mut self, line: &str) {
        let line = truncated(line, MAX_LINE_BYTES);
        self.bytes += line.len() + 1;
        self.lines.push_back(line.to_owned());
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len() + 1);
        }
    }

    /// The last `count` lines, each of at most `max_bytes` bytes, oldest first.
    pub(super) fn last(&self, count: usize, max_bytes: usize) -> Vec<String> {
        let skipped = self.lines.len().saturating_sub(count);
        self.lines.iter().skip(skipped).map(|line| truncated(line, max_bytes).to_owned()).collect()
    }

    /// The newest line with this prefix and the lines after it, at most `count` lines, each cut to `max_bytes` bytes. Without such
    /// a line, the last lines.
    pub(super) fn from(&self, prefix: &str, count: usize, max_bytes: usize) -> Vec<String> {
        let Some(begin) = self.lines.iter().rposition(|line| line.starts_with(prefix)) else {
            return self.last(count, max_bytes);
        };
        let lines = self.lines.iter().skip(begin).take(count);
        lines.map(|line| truncated(line, max_bytes).to_owned()).collect()
    }

    /// All lines, each with a line break.
    pub(super) fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

fn truncated(line: &str, max_bytes: usize) -> &str {
    &line[..line.floor_char_boundary(max_bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(lines: impl IntoIterator<Item = String>) -> LogTail {
        let mut tail = LogTail::default();
        lines.into_iter().for_each(|line| tail.push(&line));
        tail
    }

    #[test]
    fn keeps_the_last_lines() {
        let tail = tail((0..450).map(|number| format!("line {number}")));
        let text = tail.text();
        assert_eq!(text.lines().count(), 200);
        assert!(text.starts_with("line 250\n") && text.ends_with("line 449\n"), "{text}");
        assert_eq!(tail.last(2, 6), ["line 4", "line 4"]);
        assert_eq!(tail.last(2, 100), ["line 448", "line 449"]);
    }

    #[test]
    fn finds_the_lines_from_a_prefix() {
        let lines = ["stack of one", "a", "stack of two", "b", "c", "d"].map(str::to_owned);
        let tail = tail(lines);
        assert_eq!(tail.from("stack", 3, 100), ["stack of two", "b", "c"]);
        assert_eq!(tail.from("none", 2, 100), ["c", "d"]);
    }

    #[test]
    fn bounds_each_line_and_all_of_them() {
        // A line of three-byte characters: a boundary lies within one.
        let tail = tail((0..300).map(|_| "€".repeat(5_000)));
        let text = tail.text();
        assert!(text.len() <= MAX_BYTES && text.len() > MAX_BYTES - MAX_LINE_BYTES, "{}", text.len());
        assert!(text.lines().all(|line| line.len() == MAX_LINE_BYTES / 3 * 3));
        assert_eq!(tail.bytes, text.len());
        assert_eq!(tail.last(20, 500).len(), 20);
    }
}
