//! The list of checkpoints as text. Pure.

use datjob_api::report::Results;

use crate::{
    checkpoint::{
        BEST_FILE, LAST_FILE,
        listing::{CheckpointListing, FileState, JobListing, OtherFile, OtherKind, ResultsListing},
        results,
    },
    kept_units,
    outputs::estimates::TestSummary,
};

/// The columns of the table, and whether they are aligned to the right.
const COLUMNS: [(&str, bool); 11] = [
    ("epoch", true),
    ("step", true),
    ("optimizer step", true),
    ("MiB", true),
    ("written", false),
    ("SHA-256", false),
    ("validation", false),
    ("best epoch", true),
    ("clean %", true),
    ("robust %", false),
    ("state", false),
];
/// Cell of a column that does not apply.
const NONE: &str = "-";
/// Number of characters of a SHA-256 in the table.
const SHA256_CHARACTERS: usize = 12;
/// Number of bytes in a MiB.
const MIB: f64 = 1_048_576.0;

type Row = [String; COLUMNS.len()];

/// A job as text, one string per line.
pub(super) fn lines(job: &JobListing) -> Vec<String> {
    let mut lines = vec![format!("job {}", job.directory)];
    if job.checkpoints.is_empty() {
        lines.push(labelled("checkpoints", "none"));
    } else {
        lines.extend(table(&job.checkpoints.iter().map(row).collect::<Vec<_>>()));
    }
    lines.extend(job.other_files.iter().map(other_file));
    lines.extend(job.evaluation_results.map(|count| evaluation(count, job.results.is_some())));
    match &job.results {
        None => lines.push(labelled("results", "none")),
        Some(ResultsListing { recorded: None, .. }) => {
            lines.push(labelled("results", &format!("{} cannot be read", results::FILE)));
        }
        Some(listing @ ResultsListing { recorded: Some(recorded), .. }) => {
            lines.extend(results_lines(listing, recorded));
        }
    }
    lines.iter().map(|line| printable(line)).chain(job.problems.iter().map(|text| problem(text))).collect()
}

/// The line of something that is damaged or cannot be read.
pub(super) fn problem(sentence: &str) -> String {
    printable(&labelled("problem", sentence))
}

fn labelled(label: &str, text: &str) -> String {
    format!("{label:<16} {text}")
}

/// Replaces control characters: names and texts on the volume may have some.
fn printable(line: &str) -> String {
    line.replace(char::is_control, "\u{fffd}")
}

fn table(rows: &[Row]) -> Vec<String> {
    let header: Row = COLUMNS.map(|(name, _)| name.to_owned());
    let all = || std::iter::once(&header).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let line = |row: &Row| {
        let cells = row.iter().zip(COLUMNS).zip(&widths).map(|((cell, (_, to_the_right)), &width)| {
            if to_the_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

fn row(checkpoint: &CheckpointListing) -> Row {
    let CheckpointListing { epoch, epoch_step, state, description, .. } = checkpoint;
    let description = description.as_ref();
    let best = description.and_then(|description| description.best.as_ref());
    let cell = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
    [
        epoch.to_string(),
        epoch_step.to_string(),
        cell(description.map(|description| description.step.to_string())),
        cell(description.and_then(|description| description.bytes).map(mebibytes)),
        cell(description.and_then(|description| description.modified).map(|time| time.to_string())),
        cell(description.map(|description| short(&description.sha256))),
        cell(description.map(|description| validation(description.validation_pending).to_owned())),
        cell(best.map(|best| best.epoch.to_string())),
        cell(best.map(|best| best.clean.percent())),
        cell(best.map(|best| format!("{} ({})", best.robust.count().percent(), best.robust.attack))),
        state_text(*state, best.map(|best| best.state)),
    ]
}

fn validation(is_pending: bool) -> &'static str {
    if is_pending { "pending" } else { "complete" }
}

/// The state of a checkpoint and, if they are damaged, of the best weights that it names.
fn state_text(checkpoint: FileState, best: Option<FileState>) -> String {
    match best.filter(|best| *best != FileState::Whole) {
        None => name(checkpoint).to_owned(),
        Some(best) => format!("{}, best weights {}", name(checkpoint), name(best)),
    }
}

fn name(state: FileState) -> &'static str {
    match state {
        FileState::Whole => "whole",
        FileState::Corrupt => "corrupt",
        FileState::Missing => "missing",
        FileState::ManifestCorrupt => "manifest corrupt",
        FileState::ManifestInvalid => "manifest invalid",
        FileState::Unreadable => "unreadable",
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

fn short(sha256: &str) -> String {
    sha256.chars().take(SHA256_CHARACTERS).collect()
}

fn other_file(OtherFile { file, kind, bytes, modified }: &OtherFile) -> String {
    let (label, explanation) = match kind {
        OtherKind::SetAside => ("set aside", "damaged"),
        OtherKind::Tensors => ("tensors", "no manifest names them"),
        OtherKind::BestWeights => ("best weights", "no manifest names them"),
        OtherKind::Partial => ("partial file", "the write is not complete"),
    };
    let time = modified.map_or_else(|| NONE.to_owned(), |time| time.to_string());
    labelled(label, &format!("{file}: {explanation}; {} MiB, written {time}", mebibytes(*bytes)))
}

fn evaluation(count: usize, has_results: bool) -> String {
    let state = if has_results { "left over from the final evaluation" } else { "not complete" };
    labelled("evaluation", &format!("{state}; the folder {} has {count} results", kept_units::FOLDER))
}

fn results_lines(listing: &ResultsListing, recorded: &Results) -> Vec<String> {
    let file_state = |file: &str, state: Option<FileState>| {
        let state = name(state?);
        Some(format!("{file} is {state}"))
    };
    let files = [file_state(BEST_FILE, listing.best_file), file_state(LAST_FILE, listing.last_file)];
    let files: Vec<String> = files.into_iter().flatten().collect();
    let Results { best_epoch, weights, sha256, .. } = recorded;
    let text = format!("best epoch {best_epoch}, {weights}, SHA-256 {}; {}", short(sha256), files.join(", "));
    let mut lines = vec![labelled("results", &text)];
    lines.extend(TestSummary::from(recorded).lines());
    lines.extend(listing.not_written.iter().map(|error| labelled("warning", error)));
    lines
}

#[cfg(test)]
mod tests {
    use datjob_api::report::{AttackCount, Count};
    use jiff::Timestamp;

    use super::*;
    use crate::checkpoint::listing::{BestListing, Description};

    const TIME: Timestamp = Timestamp::constant(1_700_000_000, 0);

    fn checkpoint(epoch: u32, epoch_step: u64, state: FileState) -> CheckpointListing {
        let description = Description {
            step: 469 * u64::from(epoch) + epoch_step,
            validation_pending: false,
            file: "checkpoint-0002-a1b2c3d4.safetensors".into(),
            bytes: Some(9_646_900),
            modified: Some(TIME),
            sha256: "a1b2c3d4e5f60718293a".into(),
            best: None,
        };
        let manifest = "checkpoint-0002.json".into();
        CheckpointListing { epoch, epoch_step, manifest, state, description: Some(description) }
    }

    fn best(state: FileState) -> BestListing {
        BestListing {
            epoch: 1,
            clean: Count { correct: 823, total: 1000 },
            robust: AttackCount::new("pgd-10", Count { correct: 713, total: 1000 }),
            averaged: false,
            file: "best-0001-b1b2c3d4.safetensors".into(),
            sha256: "b1b2c3d4e5".into(),
            state,
        }
    }

    fn job(checkpoints: Vec<CheckpointListing>) -> JobListing {
        JobListing {
            directory: "fashion-mnist".into(),
            checkpoints,
            other_files: Vec::new(),
            evaluation_results: None,
            results: None,
            problems: Vec::new(),
        }
    }

    #[test]
    fn aligns_the_columns_of_checkpoints() {
        let mut pending = checkpoint(1, 0, FileState::Missing);
        if let Some(description) = &mut pending.description {
            description.validation_pending = true;
            (description.bytes, description.modified) = (None, None);
        }
        let unreadable =
            CheckpointListing { description: None, ..checkpoint(2, 0, FileState::ManifestCorrupt) };
        let mut within = checkpoint(2, 120, FileState::Whole);
        if let Some(description) = &mut within.description {
            description.best = Some(best(FileState::Corrupt));
        }
        let text = lines(&job(vec![pending, unreadable, within])).join("\n");
        let expected = "\
job fashion-mnist
epoch  step  optimizer step  MiB  written               SHA-256       validation  best epoch  clean %  robust %        state
    1     0             469    -  -                     a1b2c3d4e5f6  pending              -        -  -               missing
    2     0               -    -  -                     -             -                    -        -  -               manifest corrupt
    2   120            1058  9.2  2023-11-14T22:13:20Z  a1b2c3d4e5f6  complete             1    82.30  71.30 (pgd-10)  \
                        whole, best weights corrupt
results          none";
        assert_eq!(text, expected);
    }

    #[test]
    fn names_what_belongs_to_no_checkpoint() {
        let other =
            |file: &str, kind| OtherFile { file: file.into(), kind, bytes: 1 << 20, modified: Some(TIME) };
        let mut job = job(Vec::new());
        job.other_files = vec![
            other("checkpoint-0004.json.damaged", OtherKind::SetAside),
            other("checkpoint-0005-a1b2c3d4.safetensors", OtherKind::Tensors),
        ];
        job.evaluation_results = Some(12);
        job.problems = vec!["checkpoint file \u{1b}[2J is missing".into()];
        let text = lines(&job).join("\n");
        let expected = "\
job fashion-mnist
checkpoints      none
set aside        checkpoint-0004.json.damaged: damaged; 1.0 MiB, written 2023-11-14T22:13:20Z
tensors          checkpoint-0005-a1b2c3d4.safetensors: no manifest names them; 1.0 MiB, written 2023-11-14T22:13:20Z
evaluation       not complete; the folder evaluation has 12 results
results          none
problem          checkpoint file \u{fffd}[2J is missing";
        assert_eq!(text, expected);
    }

    #[test]
    fn shows_results_and_whether_their_weights_are_whole() {
        let mut job = job(Vec::new());
        let results = serde_json::json!({
            "bestEpoch": 3, "clean": {"correct": 8, "total": 10},
            "attacks": [{"attack": "pgd-20", "correct": 5, "total": 10}],
            "worstCase": {"correct": 5, "total": 10}, "weights": "job/best.safetensors", "sha256": "a1b2c3d4e5f60718",
            "seed": 0, "trainingHash": "hash", "trainerVersion": "0.1.0", "libtorchVersion": "2.11.0", "worldSize": 2
        });
        job.results = Some(ResultsListing {
            recorded: Some(serde_json::from_value(results).unwrap()),
            best_file: Some(FileState::Whole),
            last_file: Some(FileState::Missing),
            not_written: vec!["cannot write report.html".into()],
        });
        job.evaluation_results = Some(12);
        let text = lines(&job);
        let expected = [
            "evaluation       left over from the final evaluation; the folder evaluation has 12 results",
            "results          best epoch 3, job/best.safetensors, SHA-256 a1b2c3d4e5f6; best.safetensors is whole, \
             last.safetensors is missing",
            "test set              accuracy   95 % interval",
            "clean                  80.00 %   44.39 to 97.48   (8 of 10 images)",
        ];
        assert_eq!(text[2..6], expected);
        assert_eq!(text.last().unwrap(), "warning          cannot write report.html");
        job.results = Some(ResultsListing::default());
        assert_eq!(lines(&job)[3], "results          results.json cannot be read");
    }
}
