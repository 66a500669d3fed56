//! Watches jobs, their StatefulSets, pods and other children. Reconciliations read from here instead of calling the API
//! server.
//!
//! ConfigMaps are not watched: the permission to list them would include those of all users. A job's ConfigMap is immutable.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use datjob_api::contract;
use futures::StreamExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::StatefulSet, core::v1::Service, networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;

pub use self::{
    index::{Entry, Index},
    job::{UndecodableJob, Watched},
    objects::{ANNOTATION_HASH, ChildState, StatefulSetState},
    pod::{ContainerStatus, Pod},
};
use super::triggers::{JobRef, Triggers};
use crate::installation::Installation;

mod index;
mod job;
pub mod objects;
pub mod pod;

/// Number of objects in a page of a list. The pages of all kinds are in memory at the same time, with all fields.
const PAGE_SIZE: u32 = 100;

/// The children of all jobs.
#[derive(Debug, Default)]
pub struct ChildStore {
    /// StatefulSets.
    pub stateful_sets: Arc<Index<StatefulSetState>>,
    /// Pods.
    pub pods: Arc<Index<Pod>>,
    /// Services.
    pub services: Arc<Index<ChildState>>,
    /// PodDisruptionBudgets.
    pub disruption_budgets: Arc<Index<ChildState>>,
    /// NetworkPolicies.
    pub network_policies: Arc<Index<ChildState>>,
}

/// Starts the watches of one namespace or of all.
pub struct Watcher<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    triggers: Triggers,
    /// For each watch, why its first list is not complete; `None` once it is.
    waiting: Vec<watch::Receiver<Option<String>>>,
}

impl<'a> Watcher<'a> {
    /// Prepares watches of one namespace, or of all.
    pub fn new(client: &'a Client, namespace: Option<&'a str>, triggers: Triggers) -> Self {
        Self { client, namespace, triggers, waiting: Vec::new() }
    }

    /// Watches the jobs. Calls `delivered` for each version of a job, and `deleted` with the UID of each deleted job.
    pub fn watch_jobs(
        &mut self,
        installation: Installation,
        delivered: impl Fn(&Watched) + Send + 'static,
        mut deleted: impl FnMut(&str) + Send + 'static,
    ) -> Store<Watched> {
        let (store, mut writer) = reflector::store();
        let triggers = self.triggers.clone();
        let mut generations = HashMap::new();
        self.spawn(self.api::<Watched>(), watcher::Config::default(), move |event| {
            let event = event.modify(job::trim);
            writer.apply_watcher_event(&event);
            match &event {
                Event::Apply(job) | Event::InitApply(job) => {
                    let Some(uid) = job.uid() else { return };
                    delivered(job);
                    // A job that is handed over changes only its status.
                    let foreign = job.0.as_ref().is_ok_and(|job| installation.management(job).is_foreign());
                    let generation =
                        (job.meta().generation, job.meta().deletion_timestamp.is_some(), foreign);
                    // The operator's own writes of the status do not change the generation.
                    if generations.insert(uid, generation) != Some(generation) {
                        triggers.send_ref(JobRef::from_obj(job));
                    }
                }
                Event::Delete(job) => {
                    let uid = job.uid().unwrap_or_default();
                    generations.remove(&uid);
                    deleted(&uid);
                }
                // After an interruption, changes may have been missed: all jobs are reconciled.
                Event::Init => generations.clear(),
                Event::InitDone => {}
            }
        });
        store
    }

    /// Watches the children of jobs.
    pub fn watch_children(&mut self, children: &ChildStore) {
        self.index(self.api::<StatefulSet>(), &children.stateful_sets, Creation::Triggers, |set| {
            objects::stateful_set(&set)
        });
        self.index(self.api::<Pod>(), &children.pods, Creation::Triggers, pod::trim);
        self.watch_metadata::<Service>(&children.services);
        self.watch_metadata::<PodDisruptionBudget>(&children.disruption_budgets);
        self.watch_metadata::<NetworkPolicy>(&children.network_policies);
    }

    /// Waits until each watch has listed its objects. Calls `waiting` with the reason for each wait.
    pub async fn wait_until_listed(self, waiting: impl Fn(String)) {
        for mut state in self.waiting {
            loop {
                match state.borrow_and_update().clone() {
                    Some(reason) => waiting(reason),
                    None => break,
                }
                // A watch ends only with its runtime.
                if state.changed().await.is_err() {
                    break;
                }
            }
        }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn watch_metadata<K>(&mut self, index: &Arc<Index<ChildState>>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        // The operator creates these objects.
        let convert = |found: PartialObjectMeta<K>| objects::child(found.meta());
        self.index(self.api::<PartialObjectMeta<K>>(), index, Creation::IsExpected, convert);
    }

    /// Keeps an index of the objects of a watch. Triggers the jobs whose objects change.
    fn index<K, T>(&mut self, api: Api<K>, index: &Arc<Index<T>>, creation: Creation, convert: fn(K) -> T)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
        T: PartialEq + Send + Sync + 'static,
    {
        let (index, triggers) = (Arc::clone(index), self.triggers.clone());
        // Children have the label of their job's UID.
        let of_jobs = watcher::Config::default().labels(contract::LABEL_JOB_UID);
        self.spawn(api, of_jobs, move |event| {
            let Some(event) = convert_event(event, convert) else { return };
            let is_expected = creation == Creation::IsExpected && index.is_creation(&event);
            for job in index.apply(event) {
                if !is_expected {
                    triggers.send(&job);
                }
            }
        });
    }

    fn spawn<K>(
        &mut self,
        api: Api<K>,
        config: watcher::Config,
        mut apply: impl FnMut(Event<K>) + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let kind = K::kind(&()).into_owned();
        let (waiting, receiver) = watch::channel(Some(format!("Listing {kind} objects.")));
        self.waiting.push(receiver);
        tokio::spawn(async move {
            let mut events =
                std::pin::pin!(watcher::watcher(api, config.page_size(PAGE_SIZE)).default_backoff());
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        let listed = matches!(event, Event::InitDone);
                        apply(event);
                        if listed {
                            waiting.send_replace(None);
                        }
                    }
                    Err(error) => {
                        warn!(kind, %error, "Watch failed; restarting it.");
                        waiting.send_if_modified(|reason| {
                            reason.as_mut().is_some_and(|reason| {
                                *reason = format!("Cannot watch {kind} objects: {error}; retrying.");
                                true
                            })
                        });
                    }
                }
            }
        });
    }
}

/// Whether a new object triggers a reconciliation. Changes and deletions always do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creation {
    Triggers,
    IsExpected,
}

/// The event of an object, with what is kept of it; `None` for an object without the labels of a job.
fn convert_event<K: Resource, T>(event: Event<K>, convert: fn(K) -> T) -> Option<Event<Entry<T>>> {
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(object) => Event::InitApply(objects::entry(object, convert)?),
        Event::Apply(object) => Event::Apply(objects::entry(object, convert)?),
        Event::Delete(object) => Event::Delete(objects::entry(object, convert)?),
    })
}
