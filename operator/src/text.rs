//! Texts from elsewhere, cut to what a status or an event can hold.

/// At most `max_bytes` bytes of `text`, cut between characters, with "…" where something was left out.
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

/// The text as a clause in the middle of a sentence: no line ends, no period at its end.
pub fn clause(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shortened_texts_fit_and_begin_as_before(text in ".*", max_bytes in 3_usize..40) {
            let short = truncate(&text, max_bytes);
            prop_assert!(short.len() <= max_bytes);
            prop_assert!(text.starts_with(short.trim_end_matches('…')));
        }
    }

    #[test]
    fn clauses_fit_into_a_sentence() {
        assert_eq!(clause("secret \"x\"\nnot found.\n"), "secret \"x\" not found");
    }
}
