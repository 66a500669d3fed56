//! The current objects of one kind, by the job to which their labels assign them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use kube::runtime::watcher::Event;

use crate::controller::identity::Identity;

/// An object of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<T> {
    /// The job in the object's labels.
    pub job: Identity,
    /// Name of the object.
    pub name: String,
    /// What the operator needs of it.
    pub object: T,
}

type Objects<T> = HashMap<Identity, BTreeMap<String, Arc<T>>>;

/// The objects of one kind, kept up to date by the events of a watch.
#[derive(Debug)]
pub struct Index<T>(RwLock<State<T>>);

#[derive(Debug)]
struct State<T> {
    objects: Objects<T>,
    /// The objects of a list in progress, which replace all others at its end.
    listed: Option<Objects<T>>,
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        Self(RwLock::new(State { objects: HashMap::new(), listed: None }))
    }
}

impl<T: PartialEq> Index<T> {
    /// The objects of a job, by name.
    pub fn of_job(&self, job: &Identity) -> BTreeMap<String, Arc<T>> {
        // A panic leaves no change half-made.
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.objects.get(job).cloned().unwrap_or_default()
    }

    /// One object of a job.
    pub fn get(&self, job: &Identity, name: &str) -> Option<Arc<T>> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        state.objects.get(job)?.get(name).cloned()
    }

    /// Whether an event is that of an object that is not in the index.
    pub fn is_creation(&self, event: &Event<Entry<T>>) -> bool {
        matches!(event, Event::Apply(entry) if self.get(&entry.job, &entry.name).is_none())
    }

    /// Applies an event of the watch. Returns the jobs whose objects changed.
    pub fn apply(&self, event: Event<Entry<T>>) -> Vec<Identity> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => state.listed = Some(HashMap::new()),
            Event::InitApply(entry) => {
                insert(state.listed.get_or_insert_default(), entry);
            }
            Event::InitDone => {
                let listed = state.listed.take().unwrap_or_default();
                let before = std::mem::replace(&mut state.objects, listed);
                let jobs: HashSet<&Identity> = before.keys().chain(state.objects.keys()).collect();
                let differs = |job: &&&Identity| before.get(**job) != state.objects.get(**job);
                return jobs.iter().filter(differs).map(|&job| job.clone()).collect();
            }
            Event::Apply(entry) => return insert(&mut state.objects, entry).into_iter().collect(),
            Event::Delete(Entry { job, name, .. }) => {
                let Some(objects) = state.objects.get_mut(&job) else { return Vec::new() };
                let removed = objects.remove(&name).is_some();
                if objects.is_empty() {
                    state.objects.remove(&job);
                }
                return removed.then_some(job).into_iter().collect();
            }
        }
        Vec::new()
    }
}

/// Inserts an object. Returns its job if the object is new or differs.
fn insert<T: PartialEq>(objects: &mut Objects<T>, Entry { job, name, object }: Entry<T>) -> Option<Identity> {
    let of_job = objects.entry(job.clone()).or_default();
    if of_job.get(&name).is_some_and(|before| **before == object) {
        return None;
    }
    of_job.insert(name, Arc::new(object));
    Some(job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(name: &str) -> Identity {
        Identity { name: name.into(), namespace: "ns".into(), uid: format!("uid-{name}") }
    }

    fn entry(owner: &str, name: &str, object: u32) -> Entry<u32> {
        Entry { job: job(owner), name: name.into(), object }
    }

    #[test]
    fn returns_the_jobs_whose_objects_changed() {
        let index = Index::default();
        let created = Event::Apply(entry("a", "a-0", 1));
        assert!(index.is_creation(&created));
        assert_eq!(index.apply(created.clone()), [job("a")]);
        assert!(!index.is_creation(&created) && !index.is_creation(&Event::Delete(entry("a", "a-1", 1))));
        assert_eq!(index.apply(created), []);
        assert_eq!(index.apply(Event::Apply(entry("a", "a-0", 2))), [job("a")]);
        assert_eq!(index.apply(Event::Delete(entry("a", "a-1", 0))), []);
        assert_eq!(index.get(&job("a"), "a-0").as_deref(), Some(&2));
        assert_eq!(index.apply(Event::Delete(entry("a", "a-0", 0))), [job("a")]);
        assert!(index.of_job(&job("a")).is_empty());
    }

    #[test]
    fn a_new_list_replaces_all_objects_at_its_end() {
        let index = Index::default();
        for name in ["same", "gone", "changed"] {
            index.apply(Event::Apply(entry(name, "0", 1)));
        }
        index.apply(Event::Init);
        for (name, object) in [("same", 1), ("changed", 2), ("new", 1)] {
            assert_eq!(index.apply(Event::InitApply(entry(name, "0", object))), []);
        }
        assert!(index.get(&job("gone"), "0").is_some(), "until the list is complete");
        let mut changed = index.apply(Event::InitDone);
        changed.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(changed, [job("changed"), job("gone"), job("new")]);
        assert!(index.get(&job("gone"), "0").is_none());
    }
}
