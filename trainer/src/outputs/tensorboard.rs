//! `tensorboard/events.out.tfevents.*`: the history in TensorBoard's format, one event per epoch.
//!
//! An event file is a TFRecord file of Event messages (`tensorflow/core/util/event.proto`, `summary.proto`). Its bytes are a
//! function of the history. If the file on disk is a prefix of them, the rest is appended, so that a running TensorBoard
//! reads the new events. Otherwise the file has epochs that were lost, and it is replaced.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use jiff::Timestamp;
use prost::{Message, Oneof};

use super::history::{EpochRecord, History};
use datjob_data::files::{self, FileError};

/// The directory for `tensorboard --logdir`.
pub const DIRECTORY: &str = "tensorboard";
/// The event file in that directory. TensorBoard requires `tfevents` in the name.
const FILE: &str = "events.out.tfevents.0.datjob";
/// Limit on the size of an event file, in bytes.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    /// The oneof `what` of event.proto.
    #[prost(oneof = "EventContent", tags = "3, 5")]
    content: Option<EventContent>,
}

#[derive(Clone, PartialEq, Oneof)]
enum EventContent {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(oneof = "SimpleValue", tags = "2")]
    simple_value: Option<SimpleValue>,
}

/// A oneof, because protobuf encodes its member even if it is 0 and omits a plain field that is 0.
#[derive(Clone, PartialEq, Oneof)]
enum SimpleValue {
    #[prost(float, tag = "2")]
    Float(f32),
}

/// Updates the event file with the new epochs of the history.
pub fn write(directory: &Path, history: &History) -> Result<(), FileError> {
    let directory = directory.join(DIRECTORY);
    files::create_directory(&directory)?;
    let path = directory.join(FILE);
    let content = event_file(history);
    let existing = files::read_if_exists(&path, MAX_BYTES)?;
    match existing.as_deref().and_then(|existing| content.strip_prefix(existing)) {
        Some(new_events) => {
            append(&path, new_events).map_err(|error| FileError::new("append to", &path, error))
        }
        None => files::write_atomically(&path, &content),
    }
}

fn append(path: &Path, new_events: &[u8]) -> io::Result<()> {
    let old_length = fs::metadata(path)?.len();
    let mut file = OpenOptions::new().append(true).open(path)?;
    let result = file.write_all(new_events).and_then(|()| file.sync_data());
    if result.is_err() {
        // Remove a partial event, as a reader stops at it. The next epoch appends the events again.
        let _ = file.set_len(old_length);
    }
    result
}

/// The content of the event file.
fn event_file(history: &History) -> Vec<u8> {
    let started_at = history.started_at.or(history.epochs.first().map(|record| record.ended_at));
    let version = Event {
        wall_time: started_at.map_or(0.0, unix_seconds),
        step: 0,
        content: Some(EventContent::FileVersion("brain.Event:2".to_owned())),
    };
    let mut file = Vec::new();
    std::iter::once(version)
        .chain(history.epochs.iter().map(epoch_event))
        .for_each(|event| append_record(&mut file, &event));
    file
}

fn epoch_event(record: &EpochRecord) -> Event {
    let value = |(tag, value): (&str, f64)| Value {
        tag: tag.to_owned(),
        simple_value: Some(SimpleValue::Float(value as f32)),
    };
    let value = scalars(record).into_iter().map(value).collect();
    Event {
        wall_time: unix_seconds(record.ended_at),
        step: i64::from(record.epoch),
        content: Some(EventContent::Summary(Summary { value })),
    }
}

/// Tags and values of an epoch; accuracies are in percent.
fn scalars(record: &EpochRecord) -> Vec<(&'static str, f64)> {
    let mut scalars = vec![
        ("training/loss", record.loss),
        ("training/learning_rate", record.learning_rate),
        ("training/images_per_second", record.images_per_second),
        ("training/epoch_seconds", record.timing.epoch_seconds),
    ];
    if let Some(accuracy) = &record.accuracy {
        scalars.push(("validation/clean", accuracy.clean.fraction() * 100.0));
        scalars.push(("validation/robust", accuracy.robust.count().fraction() * 100.0));
        if let Some(both) = &accuracy.averaging {
            scalars.push(("validation/clean_raw", both.raw_clean.fraction() * 100.0));
            scalars.push(("validation/robust_raw", both.raw_robust.fraction() * 100.0));
            scalars.push(("validation/clean_averaged", both.averaged_clean.fraction() * 100.0));
            scalars.push(("validation/robust_averaged", both.averaged_robust.fraction() * 100.0));
        }
        if let Some(single_step) = accuracy.single_step {
            scalars.push(("validation/single_step", single_step.fraction() * 100.0));
        }
    }
    scalars
}

fn unix_seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// Appends a TFRecord: length, checksum of the length, message, checksum of the message; numbers are little-endian.
fn append_record(file: &mut Vec<u8>, event: &Event) {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked_crc(&length).to_le_bytes());
    file.extend(&message);
    file.extend(masked_crc(&message).to_le_bytes());
}

/// CRC-32C with the mask of the TFRecord format.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::outputs::history::tests::history;

    /// The expected bytes are from `RecordWriter` and the message types of TensorBoard 2.21.0.
    #[test]
    fn writes_the_same_bytes_as_tensorboard() {
        let file = event_file(&history(2));
        assert_eq!(file.len(), 516);
        let first = "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d";
        assert!(hex::encode(&file).starts_with(first));
        let sha256 = "5507b9a0002e674ac74f713c3f8e04dae4aa319a8877186dbb125feb87462e6a";
        assert_eq!(hex::encode(Sha256::digest(&file)), sha256);
    }

    #[test]
    fn appends_new_epochs_and_replaces_the_file_of_another_history() {
        use std::os::unix::fs::MetadataExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY).join(FILE);
        let write = |history: &History| {
            write(directory.path(), history).unwrap();
            assert_eq!(fs::read(&path).unwrap(), event_file(history));
            fs::metadata(&path).unwrap().ino()
        };
        let file = write(&history(1));
        assert_eq!(write(&history(3)), file, "an open TensorBoard reads the appended events");
        assert_eq!(write(&history(3)), file);
        // An open file keeps its inode number, so that no other file gets it.
        let _open = fs::File::open(&path).unwrap();
        // Resumed after epoch 2, with a different epoch 3.
        let mut other = history(3);
        other.epochs[2].loss = 7.0;
        let replaced = write(&other);
        let _also_open = fs::File::open(&path).unwrap();
        assert_ne!(replaced, file);
        assert_ne!(write(&history(2)), replaced);
        assert_eq!(fs::read_dir(directory.path().join(DIRECTORY)).unwrap().count(), 1);
    }

    #[test]
    fn rewrites_a_truncated_event() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &history(2)).unwrap();
        let path = directory.path().join(DIRECTORY).join(FILE);
        let mut truncated = fs::read(&path).unwrap();
        truncated.truncate(truncated.len() - 5);
        fs::write(&path, &truncated).unwrap();
        write(directory.path(), &history(2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), event_file(&history(2)));
    }
}
