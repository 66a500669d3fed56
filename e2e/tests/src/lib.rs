//! What the end-to-end tests are written in: a namespace of a real cluster, kubectl, helm, and patience.
//!
//! They run with `make e2e`, which installs the operator and sets `KUBECONFIG`, `DATJOB_E2E_KUBECTL`,
//! `DATJOB_E2E_HELM` (commands, in words) and `DATJOB_E2E_REGISTRY`. Any cluster does.
#![allow(clippy::missing_panics_doc, reason = "these are tests: whatever is not as it should be panics")]

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

/// Where the operator is installed.
pub const OPERATOR_NAMESPACE: &str = "datjob-system";

fn words(variable: &str) -> Vec<String> {
    let value = env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run these tests with `make e2e`"));
    value.split_whitespace().map(str::to_owned).collect()
}

/// The prefix of the images under test.
pub fn registry() -> String {
    words("DATJOB_E2E_REGISTRY").concat()
}

/// The directory of the checkout.
pub fn checkout() -> String {
    let package = env::var("CARGO_MANIFEST_DIR").expect("cargo test sets CARGO_MANIFEST_DIR");
    format!("{package}/../..")
}

fn execute(variable: &str, arguments: &[&str], input: &str) -> Output {
    let command = words(variable);
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A command that does not read its input may have ended already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the command runs")
}

fn outcome(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Runs kubectl; its output, or what it complains about.
pub fn kubectl(arguments: &[&str], input: &str) -> Result<String, String> {
    outcome(&execute("DATJOB_E2E_KUBECTL", arguments, input))
}

/// Runs helm; its output, or what it complains about.
pub fn helm(arguments: &[&str]) -> Result<String, String> {
    outcome(&execute("DATJOB_E2E_HELM", arguments, ""))
}

/// Waits until `probe` gives something; panics with `what` and the last state after `seconds`.
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

/// Which tests have the cluster now: some, each in its namespace, or one that changes what all of them need.
static CLUSTER: RwLock<()> = RwLock::new(());

/// A test's hold on the cluster, until it is dropped.
#[derive(Debug)]
enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A namespace that enforces the Pod Security level `restricted`, made for one test and removed after it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    _hold: Hold,
}

impl Namespace {
    /// Makes it anew, for a test that stays within it.
    pub fn new(test: &str) -> Self {
        let guard = CLUSTER.read().unwrap_or_else(PoisonError::into_inner);
        Self::made(test, Hold::Shared { _guard: guard })
    }

    /// Makes it anew, for a test that touches what all share (the operator, the definition) or counts what they do: no
    /// other test runs beside it.
    pub fn alone(test: &str) -> Self {
        let guard = CLUSTER.write().unwrap_or_else(PoisonError::into_inner);
        Self::made(test, Hold::Alone { _guard: guard })
    }

    fn made(test: &str, hold: Hold) -> Self {
        let namespace = Self { name: format!("datjob-e2e-{test}"), _hold: hold };
        namespace.remove();
        kubectl(&["create", "namespace", &namespace.name], "").expect("the namespace is created");
        let label = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", &namespace.name, label], "").expect("the namespace is labelled");
        namespace
    }

    fn remove(&self) {
        let arguments = ["delete", "namespace", &self.name, "--ignore-not-found", "--wait", "--timeout=120s"];
        kubectl(&arguments, "").expect("the namespace is deleted");
    }

    /// kubectl in this namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        kubectl(&[&["-n", self.name.as_str()], arguments].concat(), "")
    }

    /// `kubectl apply` of a document.
    pub fn apply(&self, document: &Value) -> Result<String, String> {
        kubectl(&["-n", &self.name, "apply", "-f", "-"], &document.to_string())
    }

    /// An object as it stands now; nothing where there is none.
    pub fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.kubectl(&["get", kind, name, "-o", "json"]).ok()?;
        Some(serde_json::from_str(&text).expect("kubectl prints JSON"))
    }

    /// All objects of a kind, or those with a label.
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

    /// Waits until a condition of a job is true; returns the job.
    pub fn wait_for_condition(&self, job: &str, condition: &str, seconds: u64) -> Value {
        wait_until(&format!("condition {condition} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match job::condition(&object, condition) {
                Some(found) if found["status"] == "True" => Ok(object),
                _ => Err(format!("the status is {}", object["status"])),
            }
        })
    }

    /// Waits until a job has completed so many epochs.
    pub fn wait_for_epoch(&self, job: &str, epochs: u64, seconds: u64) -> Value {
        wait_until(&format!("epoch {epochs} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match object["status"]["progress"]["epoch"].as_u64() {
                Some(epoch) if epoch >= epochs => Ok(object),
                _ => Err(format!("the status is {}", object["status"])),
            }
        })
    }

    /// Waits until a job's world has been re-formed so often.
    pub fn wait_until_restarted(&self, job: &str, restarts: u64, seconds: u64) -> Value {
        wait_until(&format!("restart {restarts} of {job}"), seconds, || {
            let object = self.get("datjob", job).ok_or("the job does not exist")?;
            match object["status"]["restarts"]["total"].as_u64() {
                Some(total) if total >= restarts => Ok(object),
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
        // Left where a test failed: its objects tell why.
        if !thread::panicking() {
            self.remove();
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
