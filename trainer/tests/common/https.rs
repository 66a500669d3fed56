//! An HTTPS server on the loopback interface whose certificate is signed by a certificate authority made for the test.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned, pki_types::PrivateKeyDer};

/// Answers every request with one document until the test process exits.
pub(crate) struct Server {
    /// URL of the document.
    pub(crate) url: String,
    /// PEM certificate of the authority.
    pub(crate) authority: String,
}

impl Server {
    pub(crate) fn new(document: Vec<u8>) -> Self {
        let (config, authority) = server_config();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("https://localhost:{}/data.tar", listener.local_addr().unwrap().port());
        let (config, document) = (Arc::new(config), Arc::new(document));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (config, document) = (config.clone(), document.clone());
                // A client that rejects the certificate closes the connection.
                thread::spawn(move || serve(stream?, config, &document));
            }
        });
        Self { url, authority }
    }
}

fn server_config() -> (ServerConfig, String) {
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_certificate = authority.self_signed(&authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let certificate =
        CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (config, authority_certificate.pem())
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, document: &[u8]) -> std::io::Result<()> {
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
    }
    let stream = stream.get_mut();
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", document.len())?;
    stream.write_all(document)?;
    stream.conn.send_close_notify();
    stream.flush()
}
