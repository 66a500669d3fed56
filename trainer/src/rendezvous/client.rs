//! An agent's side of the rendezvous.

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, header::CONTENT_TYPE};

use super::{
    host::Host,
    message::{Heartbeat, PATH, Refused, Reply},
    token::{self, Token},
};

/// How long an exchange over the network may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The way to the rendezvous.
#[derive(Clone, Debug)]
pub enum Client {
    /// It is hosted by this very agent.
    Local(Arc<Host>),
    /// It is hosted by another pod.
    Remote {
        /// Where.
        url: String,
        /// The HTTP client.
        http: reqwest::Client,
        /// The token of the attempt; without one, heartbeats are not authenticated.
        token: Option<Token>,
    },
}

/// A heartbeat that was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The rendezvous refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The rendezvous could not be reached, or answered something else.
    #[error("request to the rendezvous at {url} failed: {error}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        error: String,
    },
    /// The heartbeat cannot be encoded.
    #[error("cannot encode a heartbeat: {0}")]
    Encode(#[from] serde_json::Error),
}

impl Client {
    /// A client of the rendezvous on `host` at `port`. `token` is that of the attempt.
    pub fn remote(host: &str, port: u16, token: Option<Token>) -> Result<Self, ClientError> {
        let url = format!("http://{host}:{port}{PATH}");
        datjob_data::http::install_tls_provider();
        let http = reqwest::Client::builder()
            // The other pods are asked without TLS.
            .tls_certs_only([])
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| ClientError::Unreachable { url: url.clone(), error: error.to_string() })?;
        Ok(Self::Remote { url, http, token })
    }

    /// Sends a heartbeat and returns the reply.
    pub async fn exchange(&self, heartbeat: &Heartbeat) -> Result<Reply, ClientError> {
        match self {
            Self::Local(host) => Ok(host.exchange(heartbeat).await?),
            Self::Remote { url, http, token } => {
                let failed = |error: reqwest::Error| ClientError::Unreachable {
                    url: url.clone(),
                    error: innermost(&error),
                };
                let body = serde_json::to_vec(heartbeat)?;
                let mut request = http.post(url).header(CONTENT_TYPE, "application/json");
                if let Some(token) = token {
                    request = request.header(token::HEADER, token.sign(&body));
                }
                let answer = request.body(body).send().await.map_err(failed)?;
                if matches!(answer.status(), StatusCode::CONFLICT | StatusCode::UNAUTHORIZED) {
                    let refused: Refused = answer.json().await.map_err(failed)?;
                    return Err(refused.into());
                }
                answer.error_for_status().map_err(failed)?.json().await.map_err(failed)
            }
        }
    }
}

/// The cause that a person can act on stands at the end of the chain ("no such host", "connection refused").
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
