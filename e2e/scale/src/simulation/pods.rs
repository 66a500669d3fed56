//! State of the simulated pods, and their reports.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use datjob_api::contract;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// Optimizer steps per second of a simulated training.
const STEPS_PER_SECOND: f64 = 10.0;
/// Minimum length of an epoch. Each epoch ends with an evaluation.
const MIN_EPOCH: Duration = Duration::from_mins(2);
/// Maximum number of evaluations per second, of all jobs.
const MAX_EVALUATIONS: f64 = 1000.0 / 120.0;
/// Number of epochs.
const EPOCHS: u32 = 100;
/// Addresses of pods begin here; the first one is that of the network.
const FIRST_ADDRESS: u32 = Ipv4Addr::new(10, 99, 0, 1).to_bits();
/// Number of addresses.
const MAX_PODS: u32 = 65_000;

/// A simulated pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimulatedPod {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Name of its job.
    pub job: String,
    /// UID of its job.
    pub job_uid: String,
    /// Attempt of the pod.
    pub attempt: u32,
    /// Image of the trainer.
    pub image: String,
    /// Address of the pod.
    pub address: Ipv4Addr,
    /// When training began.
    pub started: Instant,
    /// Number of worlds that have formed.
    pub generation: u32,
    /// Whether a world is forming.
    pub forming: bool,
    /// Restarts of the container.
    pub restarts: u32,
}

/// The pods of the node.
#[derive(Clone, Debug)]
pub struct Pods {
    epoch: Duration,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    by_address: BTreeMap<Ipv4Addr, SimulatedPod>,
    addresses: HashMap<String, Ipv4Addr>,
    last_address: u32,
    reads: Option<Reads>,
}

/// Reads of reports.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    /// Number of reads.
    pub count: u64,
    /// Times between two reads of one report, in seconds.
    pub intervals: Vec<f64>,
    last: HashMap<Ipv4Addr, Instant>,
}

impl Pods {
    /// The pods of `jobs` jobs. An epoch takes two minutes, and longer with more than 1,000 jobs.
    pub fn new(jobs: usize) -> Self {
        let epoch = MIN_EPOCH.max(Duration::from_secs_f64(jobs as f64 / MAX_EVALUATIONS));
        Self { epoch, inner: Arc::default() }
    }

    /// Adds a pod that the scheduler bound to the node. Returns `None` if it is known or belongs to no job.
    pub fn add(&self, pod: &Pod) -> anyhow::Result<Option<SimulatedPod>> {
        let mut inner = self.lock();
        let uid = pod.uid().unwrap_or_default();
        let labels = pod.labels();
        let (Some(job), Some(job_uid)) =
            (labels.get(contract::LABEL_JOB_NAME), labels.get(contract::LABEL_JOB_UID))
        else {
            return Ok(None);
        };
        if inner.addresses.contains_key(&uid) {
            return Ok(None);
        }
        ensure!(inner.last_address < MAX_PODS, "more than {MAX_PODS} simulated pods");
        let attempt = pod.annotations().get(contract::ANNOTATION_ATTEMPT);
        let attempt = attempt.and_then(|text| text.parse().ok());
        let attempt = attempt.with_context(|| format!("pod {} has no valid attempt", pod.name_any()))?;
        let address = Ipv4Addr::from_bits(FIRST_ADDRESS + inner.last_address);
        inner.last_address += 1;
        let simulated = SimulatedPod {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            uid: uid.clone(),
            job: job.clone(),
            job_uid: job_uid.clone(),
            attempt,
            image: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.containers.first()?.image.clone())
                .unwrap_or_default(),
            address,
            started: Instant::now(),
            generation: 1,
            forming: false,
            restarts: 0,
        };
        inner.addresses.insert(uid, address);
        inner.by_address.insert(address, simulated.clone());
        Ok(Some(simulated))
    }

    /// Removes a pod.
    pub fn remove(&self, uid: &str) {
        let mut inner = self.lock();
        if let Some(address) = inner.addresses.remove(uid) {
            inner.by_address.remove(&address);
        }
    }

    /// The report of the pod with this address. Counts the read.
    pub fn read(&self, address: Ipv4Addr) -> Option<Value> {
        let mut inner = self.lock();
        let now = Instant::now();
        let report = report(inner.by_address.get(&address)?, self.epoch, now);
        if let Some(reads) = &mut inner.reads {
            reads.count += 1;
            if let Some(before) = reads.last.insert(address, now) {
                reads.intervals.push(now.saturating_duration_since(before).as_secs_f64());
            }
        }
        Some(report)
    }

    /// Begins to count reads.
    pub fn start_counting(&self) {
        self.lock().reads = Some(Reads::default());
    }

    /// The reads since [`Self::start_counting`].
    pub fn stop_counting(&self) -> Reads {
        self.lock().reads.take().unwrap_or_default()
    }

    /// Restarts the containers of the first `count` pods: their worlds end and form again.
    pub fn fail(&self, count: usize) -> Vec<SimulatedPod> {
        let mut inner = self.lock();
        let fail = |pod: &mut SimulatedPod| {
            pod.forming = true;
            pod.restarts += 1;
            pod.clone()
        };
        inner.by_address.values_mut().take(count).map(fail).collect()
    }

    /// Forms the next world of every pod that is forming.
    pub fn form(&self) -> Vec<SimulatedPod> {
        let mut inner = self.lock();
        let form = |pod: &mut SimulatedPod| {
            pod.forming = false;
            pod.generation += 1;
            pod.clone()
        };
        inner.by_address.values_mut().filter(|pod| pod.forming).map(form).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The report of a pod whose job has one pod.
fn report(pod: &SimulatedPod, length: Duration, now: Instant) -> Value {
    let elapsed = now.saturating_duration_since(pod.started).as_secs_f64();
    let length = length.as_secs_f64();
    let epoch = (elapsed / length) as u32;
    let total = length * f64::from(EPOCHS);
    let mut report = json!({
        "jobUid": pod.job_uid,
        "podUid": pod.uid,
        "attempt": pod.attempt,
        "generation": pod.generation,
        "phase": if pod.forming { "Forming" } else { "Training" },
        "worldSize": 1,
        "podsJoined": u32::from(!pod.forming),
        "progress": {
            "epoch": epoch.min(EPOCHS),
            "epochs": EPOCHS,
            "step": (elapsed * STEPS_PER_SECOND) as u64,
            "percent": (elapsed * 100.0 / total).min(99.0) as u32,
            "imagesPerSecond": 5120.0,
            "remainingSeconds": (total - elapsed).max(0.0) as u64,
            "loss": 2.3 / (1.0 + elapsed / 600.0),
            "learningRate": 0.1
        }
    });
    if epoch > 0 {
        let robust = 200 + u64::from(epoch.min(EPOCHS));
        let accuracy = json!({
            "epoch": epoch, "split": "validation",
            "clean": {"correct": 300 + u64::from(epoch.min(EPOCHS)), "total": 500},
            "robust": {"attack": "pgd-2", "correct": robust, "total": 500}
        });
        report["timing"] =
            json!({"epochSeconds": length, "attackSeconds": length / 2.0, "communicationSeconds": 1.0});
        report["accuracy"] = accuracy.clone();
        report["best"] = accuracy;
    }
    report
}

#[cfg(test)]
mod tests {
    use datjob_api::report::{Phase, Report};

    use super::*;

    fn pod(uid: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": "job-1-0", "namespace": "scale", "uid": uid,
            "labels": {"datjob.io/job-name": "job-1", "datjob.io/job-uid": "job"},
            "annotations": {"datjob.io/attempt": "2"}
        }}))
        .unwrap()
    }

    fn parse(report: Value) -> Report {
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn reports_name_their_pod_and_advance() {
        let pods = Pods::new(1);
        let simulated = pods.add(&pod("pod")).unwrap().unwrap();
        assert_eq!(pods.add(&pod("pod")).unwrap(), None);
        let first = parse(pods.read(simulated.address).unwrap());
        assert_eq!((first.job_uid.as_str(), first.pod_uid.as_str(), first.attempt), ("job", "pod", 2));
        assert!(first.accuracy.is_none());
        let later = parse(report(&simulated, MIN_EPOCH, simulated.started + MIN_EPOCH * 2));
        assert_eq!(later.progress.unwrap().epoch, 2);
        assert_eq!(later.accuracy.unwrap().epoch, 2);
        pods.remove("pod");
        assert!(pods.read(simulated.address).is_none());
    }

    #[test]
    fn thousands_of_jobs_have_longer_epochs() {
        let seconds = |jobs| Pods::new(jobs).epoch.as_secs();
        assert_eq!([1, 1_000, 5_000].map(seconds), [120, 120, 600]);
    }

    #[test]
    fn a_failure_ends_the_world_and_the_next_one_has_the_next_number() {
        let pods = Pods::new(1);
        let address = pods.add(&pod("pod")).unwrap().unwrap().address;
        assert_eq!(pods.fail(10).len(), 1);
        let forming = parse(pods.read(address).unwrap());
        assert_eq!((forming.phase, forming.generation), (Phase::Forming, 1));
        assert_eq!(pods.form()[0].restarts, 1);
        let formed = parse(pods.read(address).unwrap());
        assert_eq!((formed.phase, formed.generation), (Phase::Training, 2));
    }

    #[test]
    fn counts_reads_and_their_intervals() {
        let pods = Pods::new(1);
        let address = pods.add(&pod("pod")).unwrap().unwrap().address;
        pods.read(address);
        pods.start_counting();
        for _ in 0..3 {
            pods.read(address);
        }
        let reads = pods.stop_counting();
        assert_eq!((reads.count, reads.intervals.len()), (3, 2));
    }
}
