//! The configuration of an agent: from its pod's environment, or from the command line on a workstation.

use std::{
    collections::BTreeMap,
    env, fmt,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use datjob_api::{
    Training, contract,
    training::{FileSource, HttpSource, NamedFile, Topology},
};

use datjob_data::files::{self, FileError};

use crate::rendezvous::token::{Token, TokenError};

/// Most bytes of a training spec; a ConfigMap holds no more.
const TRAINING_MAX_BYTES: u64 = 1 << 20;

/// All that an agent needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// UID of the job.
    pub job_uid: String,
    /// UID of the pod.
    pub pod_uid: String,
    /// Own address, at which workers are reached.
    pub address: String,
    /// Index of the pod.
    pub pod_index: u32,
    /// Number of pods.
    pub replicas: u32,
    /// Workers in each pod.
    pub workers: u32,
    /// GPUs in each pod; 0 for training on the CPU.
    pub gpus: u32,
    /// The attempt.
    pub attempt: u32,
    /// The token of the attempt, with which heartbeats are authenticated; absent if an older operator started the attempt.
    pub token: Option<Token>,
    /// Name of pod 0.
    pub rendezvous_host: String,
    /// Port of pod 0's agent.
    pub rendezvous_port: u16,
    /// Where c10d's store listens on pod 0.
    pub store_bind: IpAddr,
    /// Port of c10d's store on pod 0; 0 for any.
    pub store_port: u16,
    /// Where the training spec is from.
    pub training: TrainingSource,
    /// Directory of the data set's files; in a cluster, the mount of a volume that has them below its path.
    pub data: PathBuf,
    /// Whether an HTTP source or the objects of a store are fetched into `data`.
    pub downloads: bool,
    /// Where the files beside the data set's are.
    pub files: Files,
    /// The checkpoint volume.
    pub checkpoints: PathBuf,
    /// Whether pods retry after failures of configuration and data, once the job has trained. On a workstation, the person waits
    /// for the command, so these failures end it.
    pub retries_pods: bool,
    /// Maximum number of failures without progress, if the agent counts them; in a cluster the operator does.
    pub max_restarts: Option<u32>,
}

/// Where the files beside the data set's are.
#[derive(Clone, Debug)]
pub struct Files {
    /// Below it the operator mounts claims; nothing on a workstation.
    pub mounted: Option<PathBuf>,
    /// Those that stand in for their sources, on a workstation.
    pub given: BTreeMap<NamedFile, PathBuf>,
    /// Where others are downloaded to, by their SHA-256.
    pub downloaded: PathBuf,
}

/// Where a training spec is from.
#[derive(Clone, Debug)]
pub enum TrainingSource {
    /// A file of JSON.
    File(PathBuf),
    /// It is here.
    Given(Box<Training>),
}

/// The environment is not that of a trainer pod.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A variable is missing.
    #[error(
        "missing or empty environment variable {0}; `dat-trainer agent` runs only in pods of the DatJob operator: on a \
         workstation, use `dat-trainer run`"
    )]
    Missing(&'static str),
    /// A variable has another form.
    #[error("environment variable {name}: invalid value {value:?}: {problem}")]
    Malformed {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The token has another form. It is secret, so the message does not contain it.
    #[error("invalid environment variable DATJOB_TOKEN: {0}; operator and trainer versions may differ")]
    Token(#[from] TokenError),
    /// The training spec's file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The training spec itself.
    #[error("invalid spec.training: {0}; operator and trainer versions may differ")]
    Training(#[from] serde_json::Error),
}

impl Config {
    /// From the environment that the operator gives a pod.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Ok(Self {
            job_uid: text(contract::ENV_JOB_UID)?,
            pod_uid: text(contract::ENV_POD_UID)?,
            address: text(contract::ENV_POD_IP)?,
            pod_index: parsed(contract::ENV_POD_INDEX)?,
            replicas: parsed(contract::ENV_REPLICAS)?,
            workers: parsed(contract::ENV_WORKERS_PER_POD)?,
            gpus: if env::var_os(contract::ENV_GPUS).is_some() { parsed(contract::ENV_GPUS)? } else { 0 },
            attempt: parsed(contract::ENV_ATTEMPT)?,
            token: token(env::var(contract::ENV_TOKEN).ok().as_deref())?,
            rendezvous_host: text(contract::ENV_RENDEZVOUS_HOST)?,
            rendezvous_port: contract::AGENT_PORT,
            store_bind: Ipv4Addr::UNSPECIFIED.into(),
            store_port: contract::STORE_PORT,
            training: TrainingSource::File(
                [contract::TRAINING_DIR, contract::TRAINING_FILE].iter().collect(),
            ),
            data: contract::DATA_DIR.into(),
            downloads: true,
            files: Files {
                mounted: Some(contract::FILES_DIR.into()),
                given: BTreeMap::new(),
                downloaded: Path::new(contract::SCRATCH_DIR).join("files"),
            },
            checkpoints: contract::CHECKPOINT_DIR.into(),
            retries_pods: true,
            max_restarts: None,
        })
    }

    /// The job's own directory in the checkpoint volume: a job of the same name made later has another.
    pub fn job_directory(&self) -> PathBuf {
        self.checkpoints.join(&self.job_uid)
    }

    /// Where the files are that the spec names beside its data set's. On a workstation one of a volume that nobody gave
    /// is missing: whoever needs it says so.
    pub fn files(&self, training: &Training) -> BTreeMap<NamedFile, PathBuf> {
        let place = |file: NamedFile, source: &FileSource| match (self.files.given.get(&file), source) {
            (Some(given), _) => Some(given.clone()),
            (None, FileSource::Http(http)) => Some(self.files.downloaded.join(&http.sha256)),
            (None, FileSource::Volume(volume)) => {
                Some(self.files.mounted.as_ref()?.join(file.name()).join(&volume.path))
            }
        };
        let files = training.files().into_iter();
        files.filter_map(|(file, source)| Some((file, place(file, source)?))).collect()
    }

    /// The files that are downloaded.
    pub fn downloads<'a>(&self, training: &'a Training) -> Vec<(NamedFile, &'a HttpSource)> {
        let files = training.files().into_iter().filter(|(file, _)| !self.files.given.contains_key(file));
        files
            .filter_map(|(file, source)| match source {
                FileSource::Http(http) => Some((file, http)),
                FileSource::Volume(_) => None,
            })
            .collect()
    }

    /// Pods, workers and GPUs.
    pub fn topology(&self) -> Topology {
        Topology { pods: self.replicas, workers: self.workers, gpus: self.gpus }
    }

    /// The training spec.
    pub fn training(&self) -> Result<Training, ConfigError> {
        match &self.training {
            TrainingSource::Given(training) => Ok((**training).clone()),
            TrainingSource::File(path) => {
                let missing = || FileError::new("read", path, std::io::ErrorKind::NotFound.into());
                let content = files::read_if_exists(path, TRAINING_MAX_BYTES)?.ok_or_else(missing)?;
                Ok(serde_json::from_slice(&content)?)
            }
        }
    }
}

/// The token in the environment.
fn token(text: Option<&str>) -> Result<Option<Token>, TokenError> {
    text.map(str::parse).transpose()
}

fn text(name: &'static str) -> Result<String, ConfigError> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or(ConfigError::Missing(name))
}

fn parsed<T: FromStr<Err: fmt::Display>>(name: &'static str) -> Result<T, ConfigError> {
    let value = text(name)?;
    value.parse().map_err(|error: T::Err| ConfigError::Malformed { name, value, problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_token_is_an_error_without_the_token() {
        assert_eq!(token(None), Ok(None), "an older operator sets none");
        assert!(token(Some(&"5a".repeat(32))).unwrap().is_some());
        let message = ConfigError::from(token(Some("secret")).unwrap_err()).to_string();
        assert!(message.contains("DATJOB_TOKEN") && !message.contains("secret"), "{message}");
    }
}
