//! Truncates and joins texts for statuses and events. Pure.

/// Truncates `text` to `max_bytes` at a character boundary, with "…" at its end.
pub fn truncate(text: &str, max_bytes: usize) -> String {
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    let mut end = max_bytes.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// The text for the middle of a sentence: on one line, without a final period.
pub fn clause(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn truncated_texts_fit_and_keep_their_prefix(text in ".*", max_bytes in 3_usize..40) {
            let short = truncate(&text, max_bytes);
            prop_assert!(short.len() <= max_bytes);
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
        }
    }

    #[test]
    fn clause_removes_line_breaks_and_the_final_period() {
        assert_eq!(clause("secret \"x\"\nnot found.\n"), "secret \"x\" not found");
    }
}
