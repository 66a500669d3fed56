//! Prepares the data of a pod: downloads the data set and additional files. Meanwhile the rendezvous receives how far it is.

use std::{path::PathBuf, sync::Arc, time::Instant};

use datjob_api::{
    Training,
    report::{Failure, FailureReason, Phase, PreparationState},
    training::Source,
};
use datjob_data::{
    RetryPolicy,
    objects::{self, Credentials},
    storage,
};
use tokio::{task, time};

use super::{Agent, HEARTBEAT, download_monitor::DownloadMonitor, preparation_log::PreparationLog};
use crate::{
    checkpoint::results,
    rendezvous::{Heartbeat, State},
};

/// The retry policy of downloads: a quarter of an hour in all, since a failed download ends the job.
const RETRY: RetryPolicy = RetryPolicy {
    max_attempts: 10,
    initial_delay: time::Duration::from_secs(2),
    timeout: time::Duration::from_secs(30),
};

impl Agent<'_> {
    /// Reads the training spec and prepares the data; `None` if the job has already succeeded.
    pub(super) async fn prepare(&self) -> Result<Option<Training>, Failure> {
        let (config, board) = (self.config, self.board);
        let invalid = |message: String| Failure::new(FailureReason::Configuration, message);
        let training = config.training().map_err(|error| invalid(error.to_string()))?;
        let topology = config.topology();
        training.check(topology).map_err(|error| invalid(error.to_string()))?;
        board.world_size(topology.world_size());
        training.warnings().into_iter().for_each(|warning| board.warning(warning));
        let unusable = |message: String| Failure::new(FailureReason::Data, message);
        // The heartbeats report the fault of storage that an operation waits for.
        let preparing = || self.heartbeat(State::Preparing, None);
        if config.pod_index == 0 {
            let (directory, uid, hash) = (config.job_directory(), config.job_uid.clone(), training.hash());
            let read = move || storage::retry(|| results::read(&directory, &uid, &hash));
            let found = self.on_thread(preparing, read).await?;
            if let Some(results) = found.map_err(|error| unusable(error.to_string()))? {
                board.succeeded(results);
                return Ok(None);
            }
        }
        let (owned, spec) = (config.clone(), training.clone());
        let check = move || storage::retry(|| owned.check_volumes(&spec));
        self.on_thread(preparing, check).await?.map_err(|error| unusable(error.to_string()))?;
        if config.downloads {
            self.fetch_data(&training).await?;
        }
        self.fetch_files(&training).await?;
        Ok(Some(training))
    }

    /// Fetches the data set, where its source is one to fetch from.
    async fn fetch_data(&self, training: &Training) -> Result<(), Failure> {
        let (source, dataset) = (training.data.source.clone(), training.data.dataset);
        let directory = self.config.data.clone();
        let fetch = move |monitor: Arc<DownloadMonitor>| match source {
            Source::Http(source) => datjob_data::download(dataset, &source, &directory, RETRY, &*monitor)
                .map_err(|e| e.to_string()),
            Source::ObjectStore(source) => Credentials::from_environment(&source)
                .and_then(|keys| objects::fetch(dataset, &source, keys.as_ref(), &directory, RETRY, monitor))
                .map_err(|error| error.to_string()),
            Source::Volume(_) | Source::Image(_) => Ok(None),
        };
        if matches!(training.data.source, Source::Volume(_) | Source::Image(_)) {
            return Ok(());
        }
        if let Some(warning) = self.download("data.source", fetch).await? {
            self.board.warning(warning);
        }
        Ok(())
    }

    /// Fetches the files beside the data set's that come over HTTP.
    async fn fetch_files(&self, training: &Training) -> Result<(), Failure> {
        for (file, source) in self.config.downloads(training) {
            let (source, directory) = (source.clone(), self.config.files.downloaded.clone());
            let fetch = move |monitor: Arc<DownloadMonitor>| -> Result<PathBuf, String> {
                datjob_data::download_file(&source, &directory, RETRY, &*monitor)
                    .map_err(|error| format!("spec.training.{}: {error}", file.field()))
            };
            self.download(file.field(), fetch).await?;
        }
        Ok(())
    }

    /// Runs a download on its own thread. Logs its progress and sends it to the rendezvous.
    async fn download<T: Send + 'static>(
        &self,
        field: &str,
        fetch: impl FnOnce(Arc<DownloadMonitor>) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Failure> {
        self.board.phase(Phase::Preparing);
        let monitor = Arc::new(DownloadMonitor::new());
        let of_thread = Arc::clone(&monitor);
        let mut thread = task::spawn_blocking(move || fetch(of_thread));
        let mut ticks = time::interval(HEARTBEAT);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let (begin, mut log, mut last_error) = (Instant::now(), PreparationLog::default(), None);
        loop {
            tokio::select! {
                result = &mut thread => {
                    let crashed = |error| format!("spec.training.{field}: the download crashed: {error}");
                    return result
                        .map_err(|error| Failure::new(FailureReason::Crash, crashed(error)))?
                        .map_err(|sentence| Failure::new(FailureReason::Data, sentence));
                }
                _ = ticks.tick() => {
                    let state = monitor.state();
                    if let Some(line) = log.due(begin.elapsed(), state.clone()) {
                        line.write();
                    }
                    self.send(&self.preparing(state), &mut last_error).await;
                }
            }
        }
    }

    fn preparing(&self, state: PreparationState) -> Heartbeat {
        Heartbeat { preparation: Some(state), ..self.heartbeat(State::Preparing, None) }
    }
}

#[cfg(test)]
mod tests;
