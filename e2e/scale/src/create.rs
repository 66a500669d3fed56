//! Creates many objects with concurrent clients.

use std::{
    collections::HashMap,
    fmt::Debug,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures::future::try_join_all;
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use tokio::time::timeout;

use crate::{cluster::client, statistics::per_second, wait::deadline};

/// Number of clients that create the objects of users.
pub const CREATORS: usize = 4;

/// Created objects.
#[derive(Debug)]
pub struct Created<K> {
    /// When the first request was sent.
    pub start: Instant,
    /// Time until the last response.
    pub duration: Duration,
    /// The objects, and when their request returned, by name.
    pub objects: HashMap<String, (K, Instant)>,
}

impl<K> Created<K> {
    /// Created objects per second.
    pub fn rate(&self) -> f64 {
        per_second(self.objects.len(), self.duration.as_secs_f64())
    }
}

/// Separate clients, each with separate connections.
pub async fn clients(kubeconfig: &Path, count: usize) -> anyhow::Result<Vec<Client>> {
    try_join_all((0..count).map(|_| client(kubeconfig))).await
}

/// Creates `count` objects with one task per client. `api` is that of an object's namespace.
pub async fn create_all<K>(
    clients: &[Client],
    count: usize,
    api: impl Fn(Client, &str) -> Api<K>,
    object: impl Fn(usize) -> anyhow::Result<K>,
) -> anyhow::Result<Created<K>>
where
    K: Resource + Clone + Debug + Serialize + DeserializeOwned,
{
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let workers = clients.iter().map(|client| {
        let (next, object, api) = (&next, &object, &api);
        async move {
            let mut created = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(created);
                }
                let object = object(index)?;
                let name = object.name_any();
                let stored = api(client.clone(), &object.namespace().unwrap_or_default())
                    .create(&PostParams::default(), &object)
                    .await
                    .with_context(|| format!("cannot create {name}, object {index} of {count}"))?;
                created.push((name, (stored, Instant::now())));
            }
        }
    });
    let limit = deadline(60, count, 0.1);
    let Ok(created) = timeout(limit, try_join_all(workers)).await else {
        let started = next.load(Ordering::Relaxed).min(count);
        bail!("timed out after {} s creating {count} objects; seen: {started} requests", limit.as_secs());
    };
    let objects = created?.into_iter().flatten().collect();
    Ok(Created { start, duration: start.elapsed(), objects })
}
