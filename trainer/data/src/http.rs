//! Shared code of the HTTP clients: the TLS provider and error messages.

use std::{error::Error, io, iter};

/// Installs ring as the crypto provider of rustls in this process. Call it before creating a reqwest client, which panics
/// without a provider.
pub fn install_tls_provider() {
    // Fails if a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Maximum length of the text: some servers send whole pages.
const MAX_CHARS: usize = 600;

/// The text of an error and its causes on one line, without repetitions and without bytes that a terminal would interpret:
/// some parsers quote their input.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in sources(error) {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    let printable = |c: &char| !c.is_control() && *c != char::REPLACEMENT_CHARACTER;
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().filter(printable).take(MAX_CHARS).collect()
}

/// Whether the server's certificate is not trusted. A retry cannot succeed.
pub fn is_untrusted_certificate(error: &(dyn Error + 'static)) -> bool {
    sources(error).any(|cause| matches!(cause.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))))
}

/// An error and its causes. `io::Error::source` skips the error that it wraps; this function does not.
pub(crate) fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
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
    fn joins_causes_on_one_line_without_repetitions() {
        let error = Outer(io::Error::other("connection\nreset"));
        assert_eq!(error_chain(&error), "request failed: connection reset");
        let quoted = Outer(io::Error::other("not a number: \u{1b}[31m\u{fffd}K\0"));
        assert_eq!(error_chain(&quoted), "request failed: not a number: [31mK");
    }

    #[test]
    fn finds_an_untrusted_certificate_within_io_errors() {
        let refused = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        assert!(is_untrusted_certificate(&Outer(io::Error::other(refused))));
        assert!(!is_untrusted_certificate(&Outer(io::Error::other("refused"))));
    }
}
