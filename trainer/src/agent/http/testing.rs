//! A rendezvous that is reached over HTTP.

use std::{net::Ipv4Addr, sync::Arc};

use tokio::net::TcpListener;

use super::router;
use crate::{agent::Board, rendezvous::host::Host};

/// Serves the agent that hosts this rendezvous, on the port that is returned.
pub(crate) async fn serve(host: Arc<Host>) -> u16 {
    let board = Arc::new(Board::new("uid", "pod", 1));
    board.host(host);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router(board)).await });
    port
}
