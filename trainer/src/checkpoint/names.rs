//! Names of files in the directory of a job. Pure.
//!
//! A file of tensors has the begin of its SHA-256 in its name: two worlds that write at the same time, because one does not know
//! yet that it was replaced, never write different content to one file.

use datjob_data::files::PARTIAL_EXTENSION;

use super::Steps;

const PREFIX: &str = "checkpoint-";
const MANIFEST: &str = ".json";
const TENSORS: &str = ".safetensors";
const BEST: &str = "best-";
/// Ending of the name of a damaged file that was set aside.
const SET_ASIDE: &str = ".damaged";

/// The manifest of a checkpoint: `checkpoint-0003.json` after epoch 3, `checkpoint-0003-000120.json` 120 steps later.
pub(super) fn manifest(at: Steps) -> String {
    format!("{PREFIX}{}{MANIFEST}", position(at))
}

/// The tensors of a checkpoint with this SHA-256: `checkpoint-0003-a1b2c3d4.safetensors`.
pub(super) fn tensors(at: Steps, sha256: &str) -> String {
    format!("{PREFIX}{}-{}{TENSORS}", position(at), start(sha256))
}

/// The tensors of a checkpoint of 0.1.0, which was between epochs: `checkpoint-0003.safetensors`.
pub(super) fn tensors_of_0_1_0(epoch: u32) -> String {
    format!("{PREFIX}{epoch:04}{TENSORS}")
}

/// Weights that were the best after this epoch, with this SHA-256: `best-0002-a1b2c3d4.safetensors`.
pub(super) fn best(epoch: u32, sha256: &str) -> String {
    format!("{BEST}{epoch:04}-{}{TENSORS}", start(sha256))
}

/// The name of a damaged file after it is set aside: `checkpoint-0003.json.damaged`.
pub(super) fn set_aside(name: &str) -> String {
    format!("{name}{SET_ASIDE}")
}

/// The name of a file before it was set aside; `None` for another file.
pub(super) fn parse_set_aside(name: &str) -> Option<&str> {
    name.strip_suffix(SET_ASIDE)
}

/// The position of the checkpoint with this manifest; `None` for another file.
pub(super) fn parse_manifest(name: &str) -> Option<Steps> {
    let position = name.strip_prefix(PREFIX)?.strip_suffix(MANIFEST)?;
    let (epoch, step) = position.split_once('-').unwrap_or((position, "0"));
    Some(Steps { epoch: epoch.parse().ok()?, step: step.parse().ok()? })
}

/// The position of the checkpoint with this file of tensors; `None` for another file.
pub(super) fn parse_tensors(name: &str) -> Option<Steps> {
    let parts: Vec<&str> = name.strip_prefix(PREFIX)?.strip_suffix(TENSORS)?.split('-').collect();
    let (epoch, step) = match parts[..] {
        [epoch] | [epoch, _] => (epoch, "0"),
        [epoch, step, _] => (epoch, step),
        _ => return None,
    };
    Some(Steps { epoch: epoch.parse().ok()?, step: step.parse().ok()? })
}

/// The epoch of a file of best weights; `None` for another file.
pub(super) fn parse_best(name: &str) -> Option<u32> {
    name.strip_prefix(BEST)?.strip_suffix(TENSORS)?.split('-').next()?.parse().ok()
}

/// The position of a file of tensors that was not written to its end; `None` for another file.
pub(super) fn parse_partial(name: &str) -> Option<Steps> {
    let name = name.strip_suffix(PARTIAL_EXTENSION)?.strip_suffix('.')?;
    parse_tensors(name).or_else(|| Some(Steps { epoch: parse_best(name)?, step: 0 }))
}

/// Whether a file belongs to a checkpoint: a manifest, tensors or best weights.
pub(super) fn is_of_checkpoint(name: &str) -> bool {
    parse_manifest(name).is_some() || parse_tensors(name).is_some() || parse_best(name).is_some()
}

fn position(Steps { epoch, step }: Steps) -> String {
    if step == 0 { format!("{epoch:04}") } else { format!("{epoch:04}-{step:06}") }
}

fn start(sha256: &str) -> &str {
    sha256.get(..8).unwrap_or(sha256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_again() {
        for (at, name) in [
            (Steps { epoch: 3, step: 0 }, "checkpoint-0003.json"),
            (Steps { epoch: 3, step: 120 }, "checkpoint-0003-000120.json"),
            (Steps { epoch: 12_345, step: 1_234_567 }, "checkpoint-12345-1234567.json"),
        ] {
            assert_eq!((manifest(at).as_str(), parse_manifest(name)), (name, Some(at)));
        }
        for name in ["checkpoint-.json", "checkpoint-x.json", "checkpoint-0003.json.damaged", "history.json"]
        {
            assert_eq!(parse_manifest(name), None, "{name}");
        }
        let sha256 = "a1b2c3d4e5";
        let files = [tensors(Steps { epoch: 3, step: 7 }, sha256), tensors_of_0_1_0(3), best(3, sha256)];
        let expected = [
            "checkpoint-0003-000007-a1b2c3d4.safetensors",
            "checkpoint-0003.safetensors",
            "best-0003-a1b2c3d4.safetensors",
        ];
        assert_eq!(files, expected);
        let [within, between, best] = &files;
        assert_eq!(parse_tensors(within), Some(Steps { epoch: 3, step: 7 }));
        assert_eq!(parse_tensors(between), Some(Steps { epoch: 3, step: 0 }));
        assert_eq!(
            parse_tensors(&tensors(Steps { epoch: 4, step: 0 }, sha256)),
            Some(Steps { epoch: 4, step: 0 })
        );
        assert_eq!((parse_best(best), parse_tensors(best)), (Some(3), None));
        assert_eq!([parse_best("best.safetensors"), parse_best("best-0002.safetensors")], [None, Some(2)]);
        assert_eq!(parse_set_aside(&set_aside(between)), Some(between.as_str()));
        assert_eq!(parse_set_aside(between), None);
        assert!(files.iter().all(|name| is_of_checkpoint(name)) && is_of_checkpoint("checkpoint-0003.json"));
        assert!(!is_of_checkpoint("best.safetensors") && !is_of_checkpoint("results.json"));
    }
}
