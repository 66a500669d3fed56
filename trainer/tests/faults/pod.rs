//! A pod: its link, and a container whose process 1 is `dat-trainer agent`.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use datjob_api::contract;
use rustix::process::Signal;

use crate::{
    network::{Link, Network},
    processes::{children, is_worker},
    root,
    signals::signal,
};

/// UID of every job, so that the results of two jobs name the same paths.
pub(crate) const JOB_UID: &str = "5e0c7c3a-14fa-4a17-8000-0d47a1b00014";

/// How long a container may take to start its first process.
const CONTAINER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the pods of a job have in common.
#[derive(Debug)]
pub(crate) struct PodTemplate {
    /// Directory for the root directory and the log of each pod.
    pub(crate) directory: PathBuf,
    /// Directory with the training spec.
    pub(crate) training: PathBuf,
    /// Directory of the data set.
    pub(crate) data: PathBuf,
    /// The checkpoint volume.
    pub(crate) checkpoints: PathBuf,
    /// Number of pods.
    pub(crate) replicas: u32,
    /// Number of worker processes in each pod.
    pub(crate) workers: u32,
}

/// A pod of a job. Its processes end with it.
#[derive(Debug)]
pub(crate) struct Pod {
    uid: String,
    link: Link,
    /// Arguments of the script that starts the container.
    arguments: Vec<String>,
    log: PathBuf,
    /// The parent of the agent. It ends after all processes of the container.
    container: Child,
    agent: u32,
}

/// The address of a pod. Pod 0 keeps its address, which stands for its name.
fn address(index: u32, number: u32) -> Ipv4Addr {
    let third = if index == 0 { 0 } else { number as u8 };
    Ipv4Addr::new(10, 77, third, 10 + index as u8)
}

impl Pod {
    /// Creates a pod. `number` differs for each pod of a job. `variables` are set only in this pod.
    pub(crate) fn create(
        network: &Arc<Network>,
        template: &PodTemplate,
        index: u32,
        number: u32,
        variables: Vec<String>,
    ) -> Self {
        let name = format!("pod-{index}-{number}");
        let (uid, address) = (format!("uid-of-{name}"), address(index, number));
        let link = Link::connect(network, &name, address);
        let root = template.directory.join(&name);
        fs::create_dir(&root).unwrap();
        root::create(&root);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let directories = [&root, &template.training, &template.data, &template.checkpoints];
        let mut arguments: Vec<String> = directories.map(|path| text(path)).into();
        arguments.extend(environment(template, index, &uid, address));
        arguments.extend(variables);
        let program = root::in_container(Path::new(env!("CARGO_BIN_EXE_dat-trainer")));
        arguments.extend([text(&program), "agent".to_owned()]);
        let log = template.directory.join(format!("{name}.log"));
        let (container, agent) = start_container(&link, &arguments, &log);
        Self { uid, link, arguments, log, container, agent }
    }

    /// UID of the pod.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// The link of the pod to the other pods.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Process id of the agent.
    pub(crate) fn agent(&self) -> u32 {
        self.agent
    }

    /// Process id of the first worker, if workers run.
    pub(crate) fn worker(&self) -> Option<u32> {
        children(self.agent).into_iter().find(|pid| is_worker(*pid))
    }

    /// What agent and workers have logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How the agent ended, if it has.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.container.try_wait().unwrap()
    }

    /// Kills the agent, and with it all processes of the container, and starts the container again in the same pod.
    pub(crate) fn restart_container(&mut self) {
        self.kill();
        (self.container, self.agent) = start_container(&self.link, &self.arguments, &self.log);
    }

    fn kill(&mut self) {
        // An agent that has ended is not there.
        if self.container.try_wait().is_ok_and(|status| status.is_none()) {
            signal(self.agent, Signal::KILL);
        }
        let _ = self.container.wait();
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The environment that the operator gives a pod, and what tests need: a thread for each worker, and a log without colours.
fn environment(template: &PodTemplate, index: u32, uid: &str, own_address: Ipv4Addr) -> Vec<String> {
    [
        (contract::ENV_JOB_UID, JOB_UID.to_owned()),
        (contract::ENV_POD_UID, uid.to_owned()),
        (contract::ENV_POD_IP, own_address.to_string()),
        (contract::ENV_POD_INDEX, index.to_string()),
        (contract::ENV_REPLICAS, template.replicas.to_string()),
        (contract::ENV_WORKERS_PER_POD, template.workers.to_string()),
        (contract::ENV_ATTEMPT, "1".to_owned()),
        (contract::ENV_TOKEN, "5a".repeat(32)),
        (contract::ENV_RENDEZVOUS_HOST, address(0, 0).to_string()),
        (contract::ENV_LOG, "info".to_owned()),
        ("OMP_NUM_THREADS", "1".to_owned()),
        ("NO_COLOR", "1".to_owned()),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .into()
}

/// Starts a container with private mounts and process ids. Returns its parent and its process 1, the agent.
#[expect(clippy::zombie_processes, reason = "the pod waits for the container that is returned")]
fn start_container(link: &Link, arguments: &[String], log: &Path) -> (Child, u32) {
    let file = File::options().create(true).append(true).open(log).unwrap();
    let mut command = link.command("setpriv");
    // The container ends with the thread of the test, however that ends.
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["sh", "-c", &root::script(), "sh"]).args(arguments);
    // Outside of a cluster, logs are text.
    command.env_remove("KUBERNETES_SERVICE_HOST").stdin(Stdio::null());
    let mut container = command.stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
    let started = Instant::now();
    loop {
        // The shell becomes the agent.
        if let Some(&agent) = children(container.id()).first() {
            return (container, agent);
        }
        if started.elapsed() > CONTAINER_TIMEOUT {
            container.kill().unwrap();
            container.wait().unwrap();
            panic!("the container did not start: {}", fs::read_to_string(log).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(5));
    }
}
