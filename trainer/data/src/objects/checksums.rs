//! Parses `SHA256SUMS`, a file in the format of `sha256sum`. Pure.

use std::collections::BTreeMap;

/// The SHA-256 of each file name, in hexadecimal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checksums(BTreeMap<String, String>);

impl Checksums {
    /// Parses a file. The error names the invalid line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|_| "not valid UTF-8".to_owned())?;
        let mut checksums = BTreeMap::new();
        for (number, line) in (1..).zip(text.split('\n')) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (sum, name) = parse_line(line)
                .ok_or_else(|| format!("line {number} is not in sha256sum format: {:?}", truncated(line)))?;
            if checksums.insert(name.clone(), sum.clone()).is_some_and(|earlier| earlier != sum) {
                return Err(format!("line {number} has another SHA-256 for {name} than an earlier line"));
            }
        }
        Ok(Self(checksums))
    }

    /// The SHA-256 of a file.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// The checksum and the file name of a line: 64 digits, a space, a space or an asterisk, the name. If the line starts with a
/// backslash, the name has escapes.
fn parse_line(line: &str) -> Option<(String, String)> {
    let (line, escaped) = line.strip_prefix('\\').map_or((line, false), |line| (line, true));
    let (sum, name) = line.split_at_checked(64)?;
    let name = name.strip_prefix("  ").or_else(|| name.strip_prefix(" *"))?;
    let name = if escaped { unescape(name)? } else { name.to_owned() };
    let name = name.strip_prefix("./").map_or(name.clone(), str::to_owned);
    let hexadecimal = sum.bytes().all(|byte| byte.is_ascii_hexdigit());
    (hexadecimal && !name.is_empty()).then(|| (sum.to_ascii_lowercase(), name))
}

fn unescape(name: &str) -> Option<String> {
    let mut characters = name.chars();
    let mut plain = String::with_capacity(name.len());
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                'r' => '\r',
                '\\' => '\\',
                _ => return None,
            },
            other => other,
        });
    }
    Some(plain)
}

fn truncated(line: &str) -> String {
    line.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_the_format_of_sha256sum() {
        let (a, b) = ("a1".repeat(32), "B2".repeat(32));
        let text = format!(
            "# made by hand\n{a}  train/x.jpg\n{b} *./val/a b.jpg\n\\{a}  odd\\nname\\\\\n\n{a}  train/x.jpg\n"
        );
        let checksums = Checksums::parse(text.as_bytes()).unwrap();
        assert_eq!(checksums.get("train/x.jpg"), Some(&*a));
        assert_eq!(checksums.get("val/a b.jpg"), Some(&*b.to_lowercase()));
        assert_eq!(checksums.names().collect::<Vec<_>>(), ["odd\nname\\", "train/x.jpg", "val/a b.jpg"]);
    }

    #[test]
    fn errors_name_the_invalid_line() {
        let sum = "0".repeat(64);
        let message = |text: &str| Checksums::parse(text.as_bytes()).unwrap_err();
        assert_eq!(message("\nhello"), "line 2 is not in sha256sum format: \"hello\"");
        for line in [
            format!("SHA256 (x) = {sum}"),
            format!("{sum} x"),
            format!("{sum}  "),
            format!("{}  x", "g".repeat(64)),
            format!("\\{sum}  a\\tb"),
            format!("{}é  x", "0".repeat(63)),
        ] {
            assert!(message(&line).starts_with("line 1 is not in sha256sum format: "), "{line}");
        }
        let other = "1".repeat(64);
        assert_eq!(
            message(&format!("{sum}  x\n{other}  x")),
            "line 2 has another SHA-256 for x than an earlier line"
        );
        assert_eq!(Checksums::parse(&[0xff]).unwrap_err(), "not valid UTF-8");
    }

    proptest! {
        #[test]
        fn mutated_files_are_parsed_or_rejected(
            names in prop::collection::vec("[ -~é\\\\]{1,20}", 1..5),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let lines: Vec<String> = names.iter().map(|name| format!("{}  {name}\n", "ab".repeat(32))).collect();
            let mut bytes = lines.concat().into_bytes();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Ok(checksums) = Checksums::parse(&bytes) {
                for name in checksums.names() {
                    let sum = checksums.get(name).unwrap();
                    prop_assert!(sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit()) && !name.is_empty());
                }
            }
        }
    }
}
