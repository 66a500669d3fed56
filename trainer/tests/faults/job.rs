//! A job: its pods, their volumes, and the reports of pod 0.

use std::{
    fs,
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use datjob_api::{
    Training, contract,
    report::{Phase, Report},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    network::Network,
    outcome::Outcome,
    pod::{JOB_UID, Pod, PodTemplate},
    storage_fault::StorageFault,
    synthetic_image_folder::synthetic_image_folder,
    watch::Watch,
};

/// Time between two requests for a report.
const POLL: Duration = Duration::from_millis(100);
/// How long a test waits for one event.
const LIMIT: Duration = Duration::from_mins(3);
/// How long a job may take after its last fault.
const JOB_LIMIT: Duration = Duration::from_mins(10);
/// Lines of each log in the message of a failed test.
const LOG_LINES: usize = 15;

/// A job that runs. Its processes end with it.
#[derive(Debug)]
pub(crate) struct Job {
    /// `None` for a pod that was deleted.
    pods: Vec<Option<Pod>>,
    network: Arc<Network>,
    template: PodTemplate,
    /// A pod with a fault of storage, and the fault.
    storage_fault: Option<(u32, StorageFault)>,
    /// Number of pods that were created.
    created: u32,
    watch: Watch,
    directory: TempDir,
}

impl Job {
    /// Starts a job, as the operator does: with the training spec of the manifest and with its pods. Its data set is the
    /// synthetic image folder.
    pub(crate) fn start(manifest: &Value) -> Self {
        Self::start_with_fault(manifest, None)
    }

    /// Starts a job in which one pod may have a fault of storage. The fault begins with
    /// [`begin_storage_fault`](Self::begin_storage_fault).
    pub(crate) fn start_with_fault(manifest: &Value, storage_fault: Option<(u32, StorageFault)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let spec = &manifest["spec"];
        let count = |field: &str| spec[field].as_u64().unwrap_or(1) as u32;
        let template = PodTemplate {
            directory: folder("pods"),
            training: folder("training"),
            data: synthetic_image_folder().to_owned(),
            checkpoints: folder("checkpoints"),
            replicas: count("replicas"),
            workers: count("workersPerPod"),
        };
        let training: Training = serde_json::from_value(spec["training"].clone()).unwrap();
        fs::write(template.training.join(contract::TRAINING_FILE), training.to_json()).unwrap();
        let (network, watch) = (Network::create(), Watch::start());
        let replicas = template.replicas;
        let mut job =
            Self { pods: Vec::new(), network, template, storage_fault, created: 0, watch, directory };
        for index in 0..replicas {
            job.pods.push(None);
            job.create(index);
        }
        job
    }

    /// A pod that was not deleted.
    pub(crate) fn pod(&self, index: u32) -> &Pod {
        self.pods[index as usize].as_ref().unwrap()
    }

    /// A pod that was not deleted.
    pub(crate) fn pod_mut(&mut self, index: u32) -> &mut Pod {
        self.pods[index as usize].as_mut().unwrap()
    }

    /// Deletes a pod: all its processes are killed.
    pub(crate) fn delete(&mut self, index: u32) {
        self.pods[index as usize] = None;
    }

    /// Creates a pod in the place of a deleted one. It has another UID and, except pod 0, another address.
    pub(crate) fn create(&mut self, index: u32) {
        let variables = match self.storage_fault {
            Some((pod, fault)) if pod == index => fault.variables(&self.marker(), &self.struck()),
            _ => Vec::new(),
        };
        let pod = Pod::create(&self.network, &self.template, index, self.created, variables);
        self.created += 1;
        self.pods[index as usize] = Some(pod);
    }

    /// Begins the fault of storage.
    pub(crate) fn begin_storage_fault(&self) {
        fs::write(self.marker(), "").unwrap();
    }

    /// Ends the fault of storage.
    pub(crate) fn end_storage_fault(&self) {
        fs::remove_file(self.marker()).unwrap();
    }

    /// Number of calls that met the fault of storage.
    pub(crate) fn storage_fault_strikes(&self) -> usize {
        fs::read(self.struck()).unwrap_or_default().len()
    }

    fn marker(&self) -> PathBuf {
        self.directory.path().join("storage-fault")
    }

    fn struck(&self) -> PathBuf {
        self.directory.path().join("storage-fault-strikes")
    }

    /// A file in the directory of the job on the checkpoint volume; the directory itself for an empty name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.template.checkpoints.join(JOB_UID).join(name)
    }

    /// The report of a pod, if it answers.
    pub(crate) fn report_of(&self, index: u32) -> Option<Report> {
        let address = self.pods[index as usize].as_ref()?.link().address();
        let text = self.network.get(address, contract::AGENT_PORT, contract::REPORT_PATH).ok()?;
        Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("invalid report: {error}: {text}")))
    }

    /// The report of pod 0, if it answers. Fails if the job failed.
    pub(crate) fn observe(&mut self) -> Option<Report> {
        let report = self.report_of(0)?;
        let failure = &report.failure;
        assert!(report.phase != Phase::Failed, "the job failed: {failure:?}\n{}", self.logs());
        self.watch.record(&report);
        Some(report)
    }

    /// Observes the job for some time.
    pub(crate) fn observe_for(&mut self, duration: Duration) {
        let started = Instant::now();
        while started.elapsed() < duration {
            self.observe();
            thread::sleep(POLL.min(duration.saturating_sub(started.elapsed())));
        }
    }

    /// Observes the job until `poll` returns a value.
    pub(crate) fn until<T>(&mut self, what: &str, mut poll: impl FnMut(&mut Self) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(value) = poll(self) {
                return value;
            }
            let limit = LIMIT.as_secs();
            assert!(started.elapsed() < LIMIT, "no {what} within {limit} s\n{}", self.logs());
            thread::sleep(POLL);
        }
    }

    /// Waits for a report of pod 0.
    pub(crate) fn wait_for(&mut self, what: &str, is_expected: impl Fn(&Report) -> bool) -> Report {
        self.until(what, |job| job.observe().filter(&is_expected))
    }

    /// Waits until the job trains.
    pub(crate) fn wait_for_training(&mut self) -> Report {
        self.wait_for("training", |report| {
            report.phase == Phase::Training
                && report.progress.as_ref().is_some_and(|progress| progress.step > 0)
        })
    }

    /// Waits until the first epoch is validated. The job then trains the second one.
    pub(crate) fn wait_for_second_epoch(&mut self) -> Report {
        self.wait_for("validation of the first epoch", |report| {
            report.phase == Phase::Training && report.accuracy.is_some()
        })
    }

    /// Waits for a world after that of an earlier report.
    pub(crate) fn wait_for_next_world(&mut self, earlier: &Report) -> Report {
        self.wait_for("next world", |report| report.generation > earlier.generation)
    }

    /// Waits for a worker of a pod. Returns its process id, or `None` if the job succeeds.
    pub(crate) fn worker(&mut self, index: u32) -> Option<u32> {
        self.until("worker", |job| {
            let worker = job.pod(index).worker();
            job.observe();
            if worker.is_some() || job.has_succeeded() { Some(worker) } else { None }
        })
    }

    /// Waits until the agent of a pod ends.
    pub(crate) fn exit_status(&mut self, index: u32) -> ExitStatus {
        self.until("end of an agent", |job| {
            job.observe();
            job.pod_mut(index).exit_status()
        })
    }

    /// When the job made progress.
    pub(crate) fn watch(&mut self) -> &mut Watch {
        &mut self.watch
    }

    /// Whether the job has succeeded, by the last report.
    pub(crate) fn has_succeeded(&self) -> bool {
        self.watch.has_succeeded()
    }

    /// Waits until the job made progress `moves` times, or succeeded. Fails if it stands still for longer than `limit`.
    pub(crate) fn wait_for_moves(&mut self, moves: u32, limit: Duration) {
        let (started, target) = (Instant::now(), self.watch.moves().saturating_add(moves));
        loop {
            self.observe();
            let stall = self.watch.longest_stall();
            let [stood, most] = [stall, limit].map(|time| time.as_secs());
            assert!(stall <= limit, "the job stood still for {stood} s (limit: {most} s)\n{}", self.logs());
            assert!(started.elapsed() < JOB_LIMIT, "the job does not end\n{}", self.logs());
            if self.has_succeeded() || self.watch.moves() >= target {
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the job has succeeded, and returns what it leaves.
    pub(crate) fn finish(&mut self) -> Outcome {
        let report = self.wait_for("results", |report| report.phase == Phase::Succeeded);
        assert!(report.results.is_some(), "{report:?}");
        Outcome::read(&self.file(""))
    }

    /// The ends of the logs of all pods.
    fn logs(&self) -> String {
        let entries = fs::read_dir(&self.template.directory).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
        logs.sort_unstable();
        let end = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(LOG_LINES);
            format!("--- {}\n{}", path.display(), lines[first..].join("\n"))
        };
        logs.iter().map(end).collect::<Vec<_>>().join("\n")
    }
}
