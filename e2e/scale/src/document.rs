//! Replaces the part of a document between two markers.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

const BEGIN: &str = "<!-- bench-operator: begin -->";
const END: &str = "<!-- bench-operator: end -->";

/// Fails if the document has no markers.
pub fn check(path: &Path) -> anyhow::Result<()> {
    let text = read(path)?;
    replace(&text, "").with_context(|| format!("invalid {}", path.display())).map(drop)
}

/// Writes `content` between the markers of a document.
pub fn update(path: &Path, content: &str) -> anyhow::Result<()> {
    let text = replace(&read(path)?, content).with_context(|| format!("invalid {}", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn replace(text: &str, content: &str) -> anyhow::Result<String> {
    let Some((before, rest)) = text.split_once(BEGIN) else { bail!("expected a line {BEGIN}") };
    let Some((_, after)) = rest.split_once(END) else { bail!("expected a line {END} after {BEGIN}") };
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", content.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_around_the_markers_stays() {
        let text = format!("# Scale\n{BEGIN}\nold\n{END}\nMore.\n");
        let new = replace(&text, "new\n").unwrap();
        assert_eq!(new, format!("# Scale\n{BEGIN}\nnew\n{END}\nMore.\n"));
        assert_eq!(replace(&new, "new").unwrap(), new);
    }

    #[test]
    fn missing_markers_are_an_error() {
        assert!(replace("# Scale\n", "new").unwrap_err().to_string().contains(BEGIN));
        assert!(replace(BEGIN, "new").unwrap_err().to_string().contains(END));
    }
}
