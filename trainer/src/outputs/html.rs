//! Escapes text in HTML templates; pure.

use std::fmt::{self, Write};

use askama::filters::Escaper;

/// Escapes the characters that are markup in elements and in quoted attributes. `askama.toml` selects it for every
/// template.
#[derive(Clone, Copy, Debug)]
pub(super) struct NamedEntities;

impl Escaper for NamedEntities {
    fn write_escaped_str<W: Write>(&self, mut dest: W, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => dest.write_str("&amp;")?,
                '<' => dest.write_str("&lt;")?,
                '>' => dest.write_str("&gt;")?,
                '"' => dest.write_str("&quot;")?,
                '\'' => dest.write_str("&#39;")?,
                other => dest.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        let mut escaped = String::new();
        NamedEntities.write_escaped_str(&mut escaped, r#"<a href="x">'&'"#).unwrap();
        assert_eq!(escaped, "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;");
    }
}
