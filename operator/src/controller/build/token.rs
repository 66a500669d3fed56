//! The token of an attempt: a random secret that its pods share.
//!
//! It is part of the pod template, which is written once per attempt, while there are no pods. An attempt therefore never changes
//! its token, and every attempt has another one.

/// Bytes of a token.
const LENGTH: usize = 32;

/// The token of an attempt, in hexadecimal.
#[derive(Clone, PartialEq, Eq)]
pub struct AttemptToken(String);

/// The operating system provides no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("cannot generate the token of an attempt: the operating system provides no random numbers: {0}")]
pub struct TokenError(getrandom::Error);

impl AttemptToken {
    /// A new token.
    pub fn random() -> Result<Self, TokenError> {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).map_err(TokenError)?;
        Ok(Self::from_bytes(bytes))
    }

    /// The token with these bytes.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(hex::encode(bytes))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for AttemptToken {
    /// Logs must not contain the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("AttemptToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_are_not_printed() {
        let [one, other] = [(), ()].map(|()| AttemptToken::random().unwrap());
        assert!(one != other && one.as_str().len() == 2 * LENGTH);
        assert_eq!(format!("{one:?}"), "AttemptToken(…)");
    }
}
