//! Writes checkpoints on a separate thread, while training continues. At most one copy of the state is in memory for it.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use datjob_adversarial::state_dict::StateDict;
use datjob_data::storage;

use super::TrainError;
use crate::checkpoint::{
    Best, CheckpointError, Directory, OverfittingReference, Position, SavedTensors, Steps,
};

/// How often is checked whether the thread waits for its storage.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The content of a manifest, except what follows from the tensors.
#[derive(Clone, Debug)]
pub(super) struct Description {
    pub position: Position,
    pub best: Option<Best>,
    pub overfitting_reference: Option<OverfittingReference>,
}

enum Order {
    /// Write a checkpoint.
    Checkpoint(Box<(Description, StateDict)>),
    /// Describe the newest checkpoint anew, if it has this position.
    Describe(Box<Description>),
}

/// The thread, and what it has not done yet.
#[derive(Debug)]
pub(super) struct CheckpointWriter {
    orders: Sender<Order>,
    done: Receiver<Result<(), CheckpointError>>,
    /// Number of orders that are not done.
    waiting: usize,
}

impl CheckpointWriter {
    /// Starts the thread. It keeps `keep` checkpoints; `newest` is the one on the volume that training resumed from. It ends with
    /// this object, or where it waits for its storage when that works again.
    pub(super) fn start(
        directory: Directory,
        keep: usize,
        newest: Option<SavedTensors>,
    ) -> Result<Self, TrainError> {
        let (orders, received) = mpsc::channel();
        let (results, done) = mpsc::channel();
        thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || write_all(&directory, keep, newest, &received, &results))
            .map_err(|error| TrainError::CheckpointThread(error.to_string()))?;
        Ok(Self { orders, done, waiting: 0 })
    }

    /// Writes a checkpoint. The tensors are copies on the CPU, or are not changed until it is written.
    pub(super) fn write(&mut self, description: Description, tensors: StateDict) {
        self.send(Order::Checkpoint(Box::new((description, tensors))));
    }

    /// Describes the newest checkpoint anew, if it has this position.
    pub(super) fn describe(&mut self, description: Description) {
        self.send(Order::Describe(Box::new(description)));
    }

    fn send(&mut self, order: Order) {
        self.waiting += 1;
        // Where the thread has ended, the next call of `is_free` says why.
        let _ = self.orders.send(order);
    }

    /// Whether everything is written.
    pub(super) fn is_free(&mut self) -> Result<bool, TrainError> {
        while self.waiting > 0 {
            match self.done.try_recv() {
                Ok(result) => {
                    self.waiting -= 1;
                    result?;
                }
                Err(mpsc::TryRecvError::Empty) => return Ok(false),
                Err(mpsc::TryRecvError::Disconnected) => return Err(ended()),
            }
        }
        Ok(true)
    }

    /// Waits until everything is written, or until the thread waits for its storage. Returns whether everything is written.
    pub(super) fn wait_while_storage_works(&mut self) -> Result<bool, TrainError> {
        while !self.is_free()? {
            if storage::oldest_trouble().is_some() {
                return Ok(false);
            }
            thread::sleep(CHECK_INTERVAL);
        }
        Ok(true)
    }

    /// Waits until everything is written.
    pub(super) fn finish(&mut self) -> Result<(), TrainError> {
        while self.waiting > 0 {
            let result = self.done.recv().map_err(|_| ended())?;
            self.waiting -= 1;
            result?;
        }
        Ok(())
    }
}

fn ended() -> TrainError {
    TrainError::CheckpointThread("it ended after an earlier error or a panic".to_owned())
}

fn write_all(
    directory: &Directory,
    keep: usize,
    mut newest: Option<SavedTensors>,
    orders: &Receiver<Order>,
    results: &Sender<Result<(), CheckpointError>>,
) {
    while let Ok(order) = orders.recv() {
        let result = match order {
            Order::Checkpoint(order) => {
                let (description, tensors) = *order;
                let saved = directory.save_tensors(description.position.at, &tensors);
                drop(tensors);
                saved.and_then(|saved| {
                    describe(directory, keep, &description, &saved)?;
                    newest = Some(saved);
                    Ok(())
                })
            }
            Order::Describe(description) => {
                let is_newest = |saved: &&SavedTensors| saved.at == description.position.at;
                match newest.as_ref().filter(is_newest) {
                    Some(saved) => describe(directory, keep, &description, saved),
                    None => Ok(()),
                }
            }
        };
        let failed = result.is_err();
        if results.send(result).is_err() || failed {
            return;
        }
    }
}

fn describe(
    directory: &Directory,
    keep: usize,
    description: &Description,
    tensors: &SavedTensors,
) -> Result<(), CheckpointError> {
    let Description { position, best, overfitting_reference } = description;
    directory.save_manifest(position, tensors, best.as_ref(), overfitting_reference.as_ref())?;
    if let Err(error) = directory.clean(keep, best.as_ref()) {
        // The checkpoint is valid, and the next one tries again.
        tracing::warn!(%error, "Cannot remove an older checkpoint; continuing.");
    }
    let Steps { epoch, step } = tensors.at;
    tracing::debug!(epoch, step, "Wrote a checkpoint.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use datjob_adversarial::state_dict::StateDict;
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn description(epoch: u32, step: u64, validation_pending: bool) -> Description {
        let position = Position {
            at: Steps { epoch, step },
            step: 7,
            optimizer_begin: 0,
            step_scale: 1.0,
            validation_seed: 0,
            validation_pending,
            partial_epoch: None,
        };
        Description { position, best: None, overfitting_reference: None }
    }

    fn tensors() -> StateDict {
        vec![("model.weight".into(), Tensor::ones([3], (Kind::Float, Device::Cpu)))]
    }

    #[test]
    fn writes_in_order_and_describes_only_the_newest() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::new(temporary.path(), "hash".into(), "data".into(), None);
        let mut writer = CheckpointWriter::start(directory.clone(), 2, None).unwrap();
        assert!(writer.is_free().unwrap());
        writer.write(description(1, 0, true), tensors());
        writer.describe(description(1, 0, false));
        writer.write(description(1, 30, false), tensors());
        writer.describe(description(1, 0, true));
        writer.finish().unwrap();
        assert!(writer.is_free().unwrap());
        let (newest, _) = directory.resume().unwrap().checkpoint.unwrap();
        assert_eq!(newest.at(), Steps { epoch: 1, step: 30 });
        let text = std::fs::read_to_string(temporary.path().join("checkpoint-0001.json")).unwrap();
        assert!(text.contains("\"validationPending\": false"), "{text}");
        // The next process describes the checkpoint that it resumed from.
        let mut writer = CheckpointWriter::start(directory.clone(), 2, Some((&newest).into())).unwrap();
        writer.describe(description(1, 30, true));
        writer.finish().unwrap();
        assert!(directory.resume().unwrap().checkpoint.unwrap().0.validation_pending);
    }

    #[test]
    fn an_error_ends_the_training() {
        let temporary = tempfile::tempdir().unwrap();
        let file = temporary.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let directory = Directory::new(&file, "hash".into(), "data".into(), None);
        let mut writer = CheckpointWriter::start(directory, 2, None).unwrap();
        writer.write(description(1, 0, false), tensors());
        assert!(writer.finish().is_err());
        writer.write(description(2, 0, false), tensors());
        assert!(writer.finish().unwrap_err().to_string().contains("ended"));
    }
}
