//! The embedded cluster, through its binary.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{audit::AuditLog, command::run, process};

/// Namespace of the controllers. Only their service accounts are in the audit log.
pub const CONTROLLER_NAMESPACE: &str = "datjob-system";

/// The cluster of this machine.
#[derive(Clone, Debug)]
pub struct Cluster {
    binary: PathBuf,
    directory: PathBuf,
}

impl Cluster {
    /// The cluster that `binary` starts with its state in `directory`.
    pub fn new(binary: PathBuf, directory: PathBuf) -> Self {
        Self { binary, directory }
    }

    /// A command of the binary.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--dir").arg(&self.directory).args(arguments);
        command
    }

    /// Removes the cluster of this directory, if there is one, and starts a new one. Returns the time it took. Fails if
    /// another cluster of this machine is up.
    pub async fn restart(&self) -> anyhow::Result<Duration> {
        let start = Instant::now();
        self.stop().await?;
        let group = format!("system:serviceaccounts:{CONTROLLER_NAMESPACE}");
        run(self.command(&["up", "--audit-group", &group])).await?;
        Ok(start.elapsed())
    }

    /// Removes the cluster of this directory.
    pub async fn stop(&self) -> anyhow::Result<()> {
        run(self.command(&["down"])).await.map(drop)
    }

    /// Runs kubectl as the administrator.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command(&[&["kubectl"], arguments].concat());
        command.env("KUBECONFIG", self.kubeconfig());
        run(command).await
    }

    /// Runs a command of Helm that needs no cluster.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        run(self.command(&[&["helm"], arguments].concat())).await
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// Address of the API server.
    pub fn api_server(&self) -> anyhow::Result<Ipv4Addr> {
        let path = self.kubeconfig();
        let config =
            Kubeconfig::read_from(&path).with_context(|| format!("invalid kubeconfig {}", path.display()))?;
        let cluster = config.clusters.first().and_then(|cluster| cluster.cluster.as_ref()?.server.as_deref());
        cluster.and_then(address_of).with_context(|| {
            format!("expected a server with an IPv4 address in {}, received {cluster:?}", path.display())
        })
    }

    /// The audit log.
    pub fn audit_log(&self) -> AuditLog {
        AuditLog::new(self.directory.join("log/audit.log"))
    }

    /// Processor time of the API server and etcd so far, in seconds.
    pub fn server_cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut sum = 0.0;
        for part in ["kube-apiserver", "etcd"] {
            let path = self.directory.join("pid").join(part);
            let text =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let pid =
                text.trim().parse().with_context(|| format!("invalid process ID in {}", path.display()))?;
            sum += process::usage(pid)?.cpu_seconds;
        }
        Ok(sum)
    }
}

/// The IPv4 address in a URL.
fn address_of(url: &str) -> Option<Ipv4Addr> {
    let (_, rest) = url.split_once("//")?;
    rest.split([':', '/']).next()?.parse().ok()
}

/// A client with the identity of a kubeconfig.
pub async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    let invalid = || format!("invalid kubeconfig {}", kubeconfig.display());
    let parsed = Kubeconfig::read_from(kubeconfig).with_context(invalid)?;
    let config =
        Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.with_context(invalid)?;
    Client::try_from(config).with_context(invalid)
}

/// Writes a kubeconfig for the same server with a token instead of the administrator's certificate.
pub fn write_kubeconfig(administrator: &Path, token: &str, path: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(administrator)
        .with_context(|| format!("cannot read {}", administrator.display()))?;
    let invalid = || format!("invalid kubeconfig {}", administrator.display());
    let mut document: serde_json::Value = serde_yaml::from_str(&text).with_context(invalid)?;
    let context = document["current-context"].clone();
    let matches_context = |entry: &serde_json::Value| entry["name"] == context;
    let entry = document["contexts"].as_array().and_then(|list| list.iter().find(|one| matches_context(one)));
    let Some(user) = entry.map(|entry| entry["context"]["user"].clone()) else { bail!(invalid()) };
    document["users"] = serde_json::json!([{"name": user, "user": {"token": token}}]);
    fs::write(path, document.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_address_of_the_server() {
        assert_eq!(address_of("https://10.213.0.1:6443"), Some(Ipv4Addr::new(10, 213, 0, 1)));
        assert_eq!(address_of("https://localhost"), None);
    }

    #[test]
    fn a_token_replaces_the_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::write(
            &from,
            "clusters: [{name: c, cluster: {server: s}}]\nusers: [{name: admin, user: {client-key-data: k}}]\n\
             contexts: [{name: x, context: {cluster: c, user: admin}}]\ncurrent-context: x\n",
        )
        .unwrap();
        write_kubeconfig(&from, "secret", &to).unwrap();
        let written: serde_json::Value = serde_json::from_str(&fs::read_to_string(&to).unwrap()).unwrap();
        assert_eq!(written["users"], serde_json::json!([{"name": "admin", "user": {"token": "secret"}}]));
        assert_eq!(written["clusters"][0]["cluster"]["server"], "s");
        fs::write(&from, "contexts: []").unwrap();
        assert!(write_kubeconfig(&from, "secret", &to).is_err());
    }
}
