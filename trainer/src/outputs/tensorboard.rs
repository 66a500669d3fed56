//! `tensorboard/events.out.tfevents.*`: the history as TensorBoard reads it, an event an epoch.
//!
//! An event file is a TFRecord file of Event messages (`tensorflow/core/util/event.proto`, `summary.proto`). It follows from
//! the history alone, byte by byte: what is on disk is either how it begins, and the rest is appended, so that a TensorBoard
//! that has it open sees it; or it tells of epochs that were lost, and is replaced.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
};

use jiff::Timestamp;
use prost::{Message, Oneof};

use super::history::{EpochRecord, History};
use datjob_data::files::{self, FileError};

/// The directory, to be given to `tensorboard --logdir`.
pub const DIRECTORY: &str = "tensorboard";
/// The one event file in it. Readers ask for `tfevents` in the name, and put several in the order of their names.
const FILE: &str = "events.out.tfevents.0.datjob";
/// Largest event file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
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
    #[prost(oneof = "Number", tags = "2")]
    number: Option<Number>,
}

/// A member of a oneof is written where it is 0 too; a plain field would be left out.
#[derive(Clone, PartialEq, Oneof)]
enum Number {
    #[prost(float, tag = "2")]
    Simple(f32),
}

/// Brings the event file up to date with the history.
pub fn write(directory: &Path, history: &History) -> Result<(), FileError> {
    let directory = directory.join(DIRECTORY);
    files::create_directory(&directory)?;
    let path = directory.join(FILE);
    let content = events(history);
    let existing = files::read_if_exists(&path, MAX_BYTES)?;
    match existing.as_deref().and_then(|existing| content.strip_prefix(existing)) {
        Some(rest) => append(&path, rest).map_err(|error| FileError::new("append to", &path, error)),
        None => files::write_atomically(&path, &content),
    }
}

fn append(path: &Path, rest: &[u8]) -> io::Result<()> {
    let before = fs::metadata(path)?.len();
    let mut file = OpenOptions::new().append(true).open(path)?;
    let written = file.write_all(rest).and_then(|()| file.sync_data());
    if written.is_err() {
        // Half an event is the end of the file for a reader; the whole one is tried again with the next epoch.
        let _ = file.set_len(before);
    }
    written
}

/// The event file of a history.
fn events(history: &History) -> Vec<u8> {
    let first = history.started_at.or(history.epochs.first().map(|record| record.ended_at));
    let version = Event {
        wall_time: first.map_or(0.0, seconds),
        step: 0,
        what: Some(What::FileVersion("brain.Event:2".to_owned())),
    };
    let mut file = Vec::new();
    std::iter::once(version)
        .chain(history.epochs.iter().map(event))
        .for_each(|event| record(&mut file, &event));
    file
}

fn event(record: &EpochRecord) -> Event {
    let number =
        |(tag, value): (&str, f64)| Value { tag: tag.to_owned(), number: Some(Number::Simple(value as f32)) };
    let value = scalars(record).into_iter().map(number).collect();
    Event {
        wall_time: seconds(record.ended_at),
        step: i64::from(record.epoch),
        what: Some(What::Summary(Summary { value })),
    }
}

/// What is shown of an epoch: accuracies in percent.
fn scalars(record: &EpochRecord) -> Vec<(&'static str, f64)> {
    let mut scalars = vec![
        ("training/loss", record.loss),
        ("training/learning_rate", record.learning_rate),
        ("training/images_per_second", record.images_per_second),
        ("training/epoch_seconds", record.timing.epoch_seconds),
    ];
    if let Some(accuracy) = &record.accuracy {
        scalars.push(("validation/clean", accuracy.clean.share() * 100.0));
        scalars.push(("validation/robust", accuracy.robust.count().share() * 100.0));
        if let Some(both) = &accuracy.averaging {
            scalars.push(("validation/clean_raw", both.raw_clean.share() * 100.0));
            scalars.push(("validation/robust_raw", both.raw_robust.share() * 100.0));
            scalars.push(("validation/clean_averaged", both.averaged_clean.share() * 100.0));
            scalars.push(("validation/robust_averaged", both.averaged_robust.share() * 100.0));
        }
        if let Some(single_step) = accuracy.single_step {
            scalars.push(("validation/single_step", single_step.share() * 100.0));
        }
    }
    scalars
}

fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}

/// Appends a TFRecord: its length, the length's checksum, the message, and its checksum, all little-endian.
fn record(file: &mut Vec<u8>, event: &Event) {
    let message = event.encode_to_vec();
    let length = (message.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked_crc(&length).to_le_bytes());
    file.extend(&message);
    file.extend(masked_crc(&message).to_le_bytes());
}

/// CRC-32C as TFRecord masks it, so that the checksum of data with checksums in it stays one.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::outputs::history::tests::history;

    /// The same events as TensorBoard 2.21.0's own `RecordWriter` and message types write them.
    #[test]
    fn an_event_file_is_byte_for_byte_tensorboards() {
        let file = events(&history(2));
        assert_eq!(file.len(), 516);
        let first = "1800000000000000a37f4b220900000040fc54d9411a0d627261696e2e4576656e743a32eced8f9d";
        assert!(hex::encode(&file).starts_with(first));
        let sha256 = "5507b9a0002e674ac74f713c3f8e04dae4aa319a8877186dbb125feb87462e6a";
        assert_eq!(hex::encode(Sha256::digest(&file)), sha256);
    }

    #[test]
    fn a_longer_history_is_appended_and_another_one_replaces() {
        use std::os::unix::fs::MetadataExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(DIRECTORY).join(FILE);
        let write = |history: &History| {
            write(directory.path(), history).unwrap();
            assert_eq!(fs::read(&path).unwrap(), events(history));
            fs::metadata(&path).unwrap().ino()
        };
        let file = write(&history(1));
        assert_eq!(write(&history(3)), file, "an open TensorBoard reads the appended events");
        assert_eq!(write(&history(3)), file);
        // As long as somebody has it open, no other file gets its number.
        let _open = fs::File::open(&path).unwrap();
        // From the checkpoint after epoch 2, and then another epoch 3.
        let mut other = history(3);
        other.epochs[2].loss = 7.0;
        let replaced = write(&other);
        let _also_open = fs::File::open(&path).unwrap();
        assert_ne!(replaced, file);
        assert_ne!(write(&history(2)), replaced);
        assert_eq!(fs::read_dir(directory.path().join(DIRECTORY)).unwrap().count(), 1);
    }

    #[test]
    fn a_half_written_event_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &history(2)).unwrap();
        let path = directory.path().join(DIRECTORY).join(FILE);
        let mut torn = fs::read(&path).unwrap();
        torn.truncate(torn.len() - 5);
        fs::write(&path, &torn).unwrap();
        write(directory.path(), &history(2)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), events(&history(2)));
    }
}
