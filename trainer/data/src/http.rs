//! What the HTTP clients of the trainer share: the provider of TLS, and how their errors read.

use std::{error::Error, io, iter};

/// Makes ring the cryptography of rustls in this process, as everywhere in the project. Call it before making a client of
/// reqwest, which panics without a provider.
pub fn install_tls_provider() {
    // Fails where it was called before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Most characters of a chain: some servers send pages.
const LIMIT: usize = 600;

/// An error and its causes on one line, without repetitions.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LIMIT).collect()
}

/// Whether this process does not trust the server's certificate. Retrying does not help.
pub fn is_untrusted_certificate(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

/// An error and its chain of causes. `io::Error::source` skips the error that it wraps; this does not.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let next = |error: &&'a (dyn Error + 'static)| -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    };
    iter::successors(Some(error), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("request failed")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_stand_on_one_line_and_once() {
        let error = Outer(io::Error::other("connection\nreset"));
        assert_eq!(causes(&error), "request failed: connection reset");
    }

    #[test]
    fn an_untrusted_certificate_is_found_below_io_errors() {
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(is_untrusted_certificate(&Outer(io::Error::other(refused))));
        assert!(!is_untrusted_certificate(&Outer(io::Error::other("refused"))));
    }
}
