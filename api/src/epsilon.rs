//! Perturbation sizes: a fraction (`"8/255"`) or a decimal (`"0.031"`). Pure.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Pattern of the schema. [`Epsilon::from_str`] accepts the same strings.
pub const PATTERN: &str = r"^[0-9]{1,6}(\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?$";

/// A perturbation size in units of the pixel range `[0, 1]`, which keeps its text.
///
/// ```
/// use datjob_api::Epsilon;
/// let epsilon: Epsilon = "8/255".parse().unwrap();
/// assert_eq!(epsilon.value(), 8.0 / 255.0);
/// assert_eq!(epsilon.to_string(), "8/255");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Epsilon {
    text: String,
    value: f64,
}

/// An invalid perturbation size.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid epsilon {text:?}; expected a fraction (\"8/255\") or a decimal (\"0.031\")")]
pub struct EpsilonError {
    text: String,
}

impl Epsilon {
    /// The size as a number, in units of the pixel range `[0, 1]`.
    pub fn value(&self) -> f64 {
        self.value
    }
}

impl FromStr for Epsilon {
    type Err = EpsilonError;

    fn from_str(text: &str) -> Result<Self, EpsilonError> {
        parse(text)
            .map(|value| Self { text: text.to_owned(), value })
            .ok_or_else(|| EpsilonError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<f64> {
    let (numerator, denominator) = text.split_once('/').unwrap_or((text, "1"));
    let digits =
        |part: &str, max: usize| (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = numerator.split_once('.').unwrap_or((numerator, "0"));
    if !digits(whole, 6) || !digits(fraction, 12) || !digits(denominator, 6) || denominator.starts_with('0') {
        return None;
    }
    Some(numerator.parse::<f64>().ok()? / denominator.parse::<f64>().ok()?)
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Epsilon {
    type Error = EpsilonError;

    fn try_from(text: String) -> Result<Self, EpsilonError> {
        text.parse()
    }
}

impl From<Epsilon> for String {
    fn from(epsilon: Epsilon) -> Self {
        epsilon.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_fractions_and_decimals() {
        for (text, value) in
            [("8/255", 8.0 / 255.0), ("0.031", 0.031), ("0.1", 0.1), ("1", 1.0), ("2.5/255", 2.5 / 255.0)]
        {
            assert!((text.parse::<Epsilon>().unwrap().value() - value).abs() < f64::EPSILON, "{text}");
        }
    }

    #[test]
    fn rejects_other_texts_with_an_example() {
        for text in
            ["", "8/0", "-1", "8/", "/255", "1e-3", " 8/255", "8/255/2", ".5", "0x1", "NaN", "inf", "１"]
        {
            let error = text.parse::<Epsilon>().unwrap_err().to_string();
            assert!(error.contains("\"8/255\""), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn keeps_its_text(text in r"[0-9]{1,6}(\.[0-9]{1,12})?(/[1-9][0-9]{0,5})?") {
            let epsilon: Epsilon = text.parse().unwrap();
            prop_assert_eq!(epsilon.to_string(), text.clone());
            let json = serde_json::to_string(&epsilon).unwrap();
            prop_assert_eq!(serde_json::from_str::<Epsilon>(&json).unwrap(), epsilon);
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            if let Ok(epsilon) = text.parse::<Epsilon>() {
                prop_assert!(epsilon.value().is_finite() && epsilon.value() >= 0.0);
            }
        }
    }
}
