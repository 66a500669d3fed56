//! Requests to a controller's /readyz and /metrics.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::Context as _;

use crate::namespace::Namespace;

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// An answer over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: String,
}

/// Sends a GET request, from within a network namespace if there is one.
pub async fn get(address: SocketAddr, path: &str, namespace: Option<&Namespace>) -> anyhow::Result<Answer> {
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    let namespace = namespace.cloned();
    let answer = tokio::task::spawn_blocking(move || match namespace {
        Some(namespace) => namespace.enter(move || exchange(address, &request)),
        None => exchange(address, &request),
    });
    answer
        .await
        .context("the request was aborted")?
        .with_context(|| format!("cannot get http://{address}{path}"))
}

fn exchange(address: SocketAddr, request: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    parse(&text).with_context(|| format!("invalid response: {text:?}"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn reads_status_and_body() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nStarting.\n");
        });
        let answer = get(address, "/readyz", None).await.unwrap();
        assert_eq!(answer, Answer { status: 503, body: "Starting.\n".into() });
        assert!(get(address, "/readyz", None).await.is_err());
    }
}
