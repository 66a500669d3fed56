//! TLS of what speaks HTTP.

/// Makes ring the cryptography of rustls in this process, as it is everywhere in the project. To be called before a client
/// of reqwest is made, which panics without.
pub(crate) fn use_ring() {
    // Fails where it was called before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
