//! Serves the reports of all pods with one listener: the local address of a connection says which pod is asked.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{ConnectInfo, State, connect_info::Connected},
    http::StatusCode,
    routing::get,
    serve::IncomingStream,
};
use datjob_api::contract::{AGENT_PORT, REPORT_PATH};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::pods::Pods;
use crate::namespace::Namespace;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The address that a client connected to.
#[derive(Clone, Copy, Debug)]
struct LocalAddress(Option<SocketAddr>);

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for LocalAddress {
    fn connect_info(stream: IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        Self(stream.io().local_addr().ok())
    }
}

/// Listens on the agent's port of all addresses of the namespace.
pub fn start(namespace: &Namespace, pods: Pods) -> anyhow::Result<Server> {
    let listener = namespace.enter(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, AGENT_PORT))
            .with_context(|| format!("cannot listen on port {AGENT_PORT} in the network namespace"))?;
        listener.set_nonblocking(true).context("cannot configure the listener")?;
        Ok(listener)
    })?;
    serve(listener, pods)
}

fn serve(listener: TcpListener, pods: Pods) -> anyhow::Result<Server> {
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot use the listener")?;
    let service = Router::new()
        .route(REPORT_PATH, get(report))
        .with_state(pods)
        .into_make_service_with_connect_info::<LocalAddress>();
    Ok(Server(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, service).await {
            eprintln!("the server of reports failed: {error}");
        }
    })))
}

async fn report(
    ConnectInfo(LocalAddress(address)): ConnectInfo<LocalAddress>,
    State(pods): State<Pods>,
) -> Result<Json<Value>, StatusCode> {
    let Some(IpAddr::V4(address)) = address.map(|address| address.ip()) else {
        return Err(StatusCode::BAD_REQUEST);
    };
    pods.read(address).map(Json).ok_or(StatusCode::NOT_FOUND)
}
