//! Creates many objects with concurrent clients.

use std::{
    collections::HashMap,
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use kube::{Api, Client, Resource, ResourceExt as _, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};

use crate::{share::share, statistics::per_second, wait::deadline};

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
    let start = Instant::now();
    let what = format!("creating {count} objects");
    let created = share(clients, count, &what, deadline(60, count, 0.1), async |client, index| {
        let object = object(index)?;
        let name = object.name_any();
        let stored = api(client.clone(), &object.namespace().unwrap_or_default())
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("cannot create {name}, object {index} of {count}"))?;
        Ok((name, (stored, Instant::now())))
    })
    .await?;
    let objects = created.into_iter().collect();
    Ok(Created { start, duration: start.elapsed(), objects })
}
