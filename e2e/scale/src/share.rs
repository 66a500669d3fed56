//! Shares work among concurrent clients.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::bail;
use futures::future::try_join_all;
use kube::Client;
use tokio::time::timeout;

use crate::cluster::client;

/// Number of clients that write as the operator does, as many as its concurrent reconciliations.
pub const WRITERS: usize = 16;

/// Separate clients, each with separate connections.
pub async fn clients(kubeconfig: &Path, count: usize) -> anyhow::Result<Vec<Client>> {
    try_join_all((0..count).map(|_| client(kubeconfig))).await
}

/// Does a piece of work for each index below `count`, with one task per client. Fails after `limit`, naming `what` was done.
pub async fn share<C, T>(
    clients: &[C],
    count: usize,
    what: &str,
    limit: Duration,
    work: impl AsyncFn(&C, usize) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let tasks = clients.iter().map(async |client| {
        let mut results = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return anyhow::Ok(results);
            }
            results.push(work(client, index).await?);
        }
    });
    let Ok(results) = timeout(limit, try_join_all(tasks)).await else {
        let started = next.load(Ordering::Relaxed).min(count);
        bail!("timed out after {} s {what}; seen: {started} of {count}", limit.as_secs());
    };
    Ok(results?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_index_is_worked_on_once() {
        let limit = Duration::from_mins(1);
        let mut done = share(&[(); 3], 10, "counting", limit, async |(), index| Ok(index)).await.unwrap();
        done.sort_unstable();
        assert_eq!(done, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_missed_deadline_names_what_was_done() {
        let work = async |(): &(), _| std::future::pending::<anyhow::Result<()>>().await;
        let result = share(&[(); 3], 10, "writing jobs", Duration::ZERO, work).await;
        assert_eq!(result.unwrap_err().to_string(), "timed out after 0 s writing jobs; seen: 3 of 10");
    }
}
