//! Authentication of heartbeats: each carries an HMAC-SHA256 of its body with the token of the attempt as the key.

use std::{fmt, str::FromStr};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Header of a heartbeat: the HMAC in hexadecimal.
pub const HEADER: &str = "x-datjob-mac";

/// Bytes of a token.
const LENGTH: usize = 32;
/// Bytes of a block of SHA-256. HMAC pads shorter keys with zeros.
const BLOCK: usize = 64;

/// A random secret that all pods of an attempt share.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; LENGTH]);

/// A token is malformed, or cannot be generated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is not a token. The message does not contain it.
    #[error("expected {} hexadecimal digits", 2 * LENGTH)]
    Malformed,
    /// The operating system provides no random numbers.
    #[error("cannot generate a token: the operating system provides no random numbers: {0}")]
    Random(String),
}

/// A heartbeat is not from a pod of this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Unauthenticated {
    /// It has no HMAC.
    #[error("missing header X-Datjob-Mac; the sender has no DATJOB_TOKEN")]
    Missing,
    /// Its HMAC does not match its body.
    #[error("invalid HMAC in header X-Datjob-Mac; the sender has another DATJOB_TOKEN than this attempt")]
    Mismatch,
}

impl Token {
    /// A new token.
    pub fn random() -> Result<Self, TokenError> {
        let mut bytes = [0; LENGTH];
        getrandom::fill(&mut bytes).map_err(|error| TokenError::Random(error.to_string()))?;
        Ok(Self(bytes))
    }

    /// The HMAC of a body, in hexadecimal.
    pub fn sign(&self, body: &[u8]) -> String {
        hex::encode(self.hmac(body).finalize().into_bytes())
    }

    /// Checks the HMAC of a body, in constant time.
    pub fn verify(&self, body: &[u8], mac: Option<&[u8]>) -> Result<(), Unauthenticated> {
        let mac = hex::decode(mac.ok_or(Unauthenticated::Missing)?).map_err(|_| Unauthenticated::Mismatch)?;
        self.hmac(body).verify_slice(&mac).map_err(|_| Unauthenticated::Mismatch)
    }

    fn hmac(&self, body: &[u8]) -> Hmac<Sha256> {
        let mut key = [0; BLOCK];
        key[..LENGTH].copy_from_slice(&self.0);
        let mut hmac = Hmac::<Sha256>::new(&key.into());
        hmac.update(body);
        hmac
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let mut bytes = [0; LENGTH];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| TokenError::Malformed)?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Token {
    /// Logs must not contain the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2: a key that is shorter than a block.
    #[test]
    fn the_mac_is_hmac_sha256() {
        let mut key = [0; LENGTH];
        key[..4].copy_from_slice(b"Jefe");
        let mac = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(Token(key).sign(b"what do ya want for nothing?"), mac);
    }

    #[test]
    fn only_the_same_token_and_body_match() {
        let (own, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(own, other);
        let mac = own.sign(b"body");
        assert_eq!(own.verify(b"body", Some(mac.as_bytes())), Ok(()));
        assert_eq!(own.verify(b"body", None), Err(Unauthenticated::Missing));
        assert_eq!(own.verify(b"bodY", Some(mac.as_bytes())), Err(Unauthenticated::Mismatch));
        assert_eq!(other.verify(b"body", Some(mac.as_bytes())), Err(Unauthenticated::Mismatch));
        for malformed in ["", "00", "not hexadecimal", &mac[..62]] {
            assert_eq!(own.verify(b"body", Some(malformed.as_bytes())), Err(Unauthenticated::Mismatch));
        }
    }

    #[test]
    fn a_token_is_64_hexadecimal_digits_and_is_not_printed() {
        let text = "0123456789abcdef".repeat(4);
        let token: Token = text.parse().unwrap();
        assert_eq!(token.0[..3], [0x01, 0x23, 0x45]);
        assert_eq!(format!("{token:?}"), "Token(…)");
        for malformed in ["", "0123", &text[1..], &"x".repeat(64)] {
            let error = malformed.parse::<Token>().unwrap_err();
            assert_eq!(error.to_string(), "expected 64 hexadecimal digits");
        }
    }
}
