//! Helpers of the end-to-end tests: a namespace of a real cluster, kubectl, helm and waiting.
//!
//! `make e2e` runs the tests. It installs the operator and sets `KUBECONFIG`, `DATJOB_E2E_KUBECTL`, `DATJOB_E2E_HELM`
//! (commands with arguments) and `DATJOB_E2E_REGISTRY`. Any cluster works.
#![allow(clippy::missing_panics_doc, reason = "a failed test panics")]

use std::{
    env,
    io::Write,
    process::{Command, Output, Stdio},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::Value;

pub mod job;

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "datjob-system";

fn command_line(variable: &str) -> Vec<String> {
    let value = env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run these tests with `make e2e`"));
    value.split_whitespace().map(str::to_owned).collect()
}

/// The prefix of the images under test.
pub fn registry() -> String {
    command_line("DATJOB_E2E_REGISTRY").concat()
}

/// The directory of the checkout.
pub fn checkout() -> String {
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo test sets CARGO_MANIFEST_DIR");
    format!("{package}/../..")
}

fn execute(variable: &str, arguments: &[&str], input: &str) -> Output {
    let command = command_line(variable);
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A command that does not read its input may have exited already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the command runs")
}

fn into_result(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs kubectl; returns its standard output, or its standard error if it fails.
pub fn kubectl(arguments: &[&str], input: &str) -> Result<String, String> {
    into_result(&execute("DATJOB_E2E_KUBECTL", arguments, input))
}

/// Runs helm; returns its standard output, or its standard error if it fails.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    into_result(&execute("DATJOB_E2E_HELM", arguments, ""))
}

/// The value of a metric of the only operator pod of a release.
pub fn operator_metric(namespace: &str, release: &str, name: &str) -> f64 {
    let selector = format!("app.kubernetes.io/instance={release}");
    let pods = kubectl(&["-n", namespace, "get", "pods", "-l", &selector, "-o", "name"], "").expect("pods");
    let pod = pods.lines().next().expect("the operator runs").trim_start_matches("pod/").to_owned();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:8080/proxy/metrics");
    let text = kubectl(&["get", "--raw", &path], "").expect("the operator serves metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).expect("the metric exists");
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

/// Waits until `probe` succeeds; panics with `what` and the last error after `seconds`.
pub fn wait_until<T>(what: &str, seconds: u64, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if started.elapsed() > Duration::from_secs(seconds) => {
                panic!("timed out after {seconds} s waiting for {what}: {state}")
            }
            Err(_) => thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// Lock of the cluster: shared by tests within their namespaces, exclusive for a test that affects the others.
static CLUSTER: RwLock<()> = RwLock::new(());

/// A test's lock of the cluster.
#[derive(Debug)]
enum ClusterLock {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Exclusive { _guard: RwLockWriteGuard<'static, ()> },
}

/// A namespace that enforces the Pod Security level `restricted`. It is created for one test and deleted after it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    _lock: ClusterLock,
}

impl Namespace {
    /// Creates a namespace for a test that affects no other namespace.
    pub fn new(test: &str) -> Self {
        let guard = CLUSTER.read().unwrap_or_else(PoisonError::into_inner);
        Self::create(test, ClusterLock::Shared { _guard: guard })
    }

    /// Creates a namespace for a test that changes the operator or the definition, or counts requests. No other test runs
    /// at the same time.
    pub fn exclusive(test: &str) -> Self {
        let guard = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
        Self::create(test, ClusterLock::Exclusive { _guard: guard })
    }

    fn create(test: &str, lock: ClusterLock) -> Self {
        let namespace = Self { name: format!("datjob-e2e-{test}"), _lock: lock };
        namespace.delete();
        kubectl(&["create", "namespace", &namespace.name], "").expect("the namespace is created");
        let label = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", &namespace.name, label], "").expect("the namespace is labelled");
        namespace
    }

    fn delete(&self) {
        let arguments = ["delete", "namespace", &self.name, "--ignore-not-found", "--wait", "--timeout=120s"];
        kubectl(&arguments, "").expect("the namespace is deleted");
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        kubectl(&[&["-n", self.name.as_str()], arguments].concat(), "")
    }

    /// Applies a document.
    pub fn apply(&self, document: &Value) -> Result<String, String> {
        kubectl(&["-n", &self.name, "apply", "-f", "-"], &document.to_string())
    }

    /// The current object, if it exists.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.kubectl(&["get", kind, name, "-o", "json"]).ok()?;
        Some(serde_json::from_str(&text).expect("kubectl prints JSON"))
    }

    /// The objects of a kind that match a label selector.
    pub fn list(&self, kind: &str, selector: &str) -> Vec<Value> {
        let text =
            self.kubectl(&["get", kind, "-l", selector, "-o", "json"]).expect("the kind can be listed");
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        list["items"].as_array().expect("a list has items").clone()
    }

    /// The pods of a job, by name.
    pub fn pods(&self, job: &str) -> Vec<Value> {
        self.list("pods", &format!("datjob.io/job-name={job}"))
    }

    /// The report of a job's pod 0, through the API server.
    pub fn report(&self, job: &str) -> Option<Value> {
        let path = format!("/api/v1/namespaces/{}/pods/{job}-0:8080/proxy/v1/report", self.name);
        serde_json::from_str(&kubectl(&["get", "--raw", &path], "").ok()?).ok()
    }

    /// Waits until a condition of a job is true; returns the job. Fails at once if the job has finished without it.
    pub fn wait_for_condition(&self, job: &str, condition: &str, seconds: u64) -> Value {
        wait_until(&format!("condition {condition} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            let is_true = |kind| job::condition(&object, kind).is_some_and(|found| found["status"] == "True");
            if is_true(condition) {
                return Ok(object);
            }
            assert!(!is_true("Finished"), "{job} finished without {condition}: {}", object["status"]);
            Err(format!("the status is {}", object["status"]))
        })
    }

    /// Waits until a job has completed this number of epochs.
    pub fn wait_for_epoch(&self, job: &str, epochs: u64, seconds: u64) -> Value {
        wait_until(&format!("epoch {epochs} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match object["status"]["progress"]["epoch"].as_u64() {
                Some(epoch) if epoch >= epochs => Ok(object),
                _ => Err(format!("the status is {}", object["status"])),
            }
        })
    }

    /// Waits until a job has restarted this number of times.
    pub fn wait_until_restarted(&self, job: &str, restarts: u64, seconds: u64) -> Value {
        wait_until(&format!("restart {restarts} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match object["status"]["restarts"]["total"].as_u64() {
                Some(total) if total >= restarts => Ok(object),
                _ => Err(format!("the status is {}", object["status"])),
            }
        })
    }

    /// Waits until a pod has succeeded.
    pub fn wait_for_success(&self, pod: &str) {
        wait_until(&format!("success of pod {pod}"), 120, || match self.get("pod", pod) {
            Some(object) if object["status"]["phase"] == "Succeeded" => Ok(()),
            other => Err(format!("the pod is {other:?}")),
        });
    }

    /// Waits until the condition Ready of a job has a reason; returns the job.
    pub fn wait_for_reason(&self, job: &str, reason: &str, seconds: u64) -> Value {
        wait_until(&format!("reason {reason} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match job::condition(&object, "Ready") {
                Some(ready) if ready["reason"] == reason => Ok(object),
                _ => Err(format!("the status is {}", object["status"])),
            }
        })
    }

    /// The reasons and messages of a job's events.
    pub fn events(&self, job: &str) -> Vec<(String, String)> {
        let text =
            self.kubectl(&["get", "events.events.k8s.io", "-o", "json"]).expect("events can be listed");
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        let of_job =
            |event: &&Value| event["regarding"]["kind"] == "DatJob" && event["regarding"]["name"] == job;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let items = list["items"].as_array().expect("a list has items");
        items.iter().filter(of_job).map(|event| (text(&event["reason"]), text(&event["note"]))).collect()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A failed test keeps its namespace for debugging.
        if !thread::panicking() {
            self.delete();
        }
    }
}

/// The documents of a YAML file.
pub fn documents(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{path}: {error}")))
        .collect()
}
