//! Reading weights of PyTorch. `reference/state_dict.py` generates the files.

use std::{fs, io::Write, path::PathBuf};

use datjob_adversarial::state_dict;
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(name)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

#[test]
fn reads_state_dicts_of_pytorch() {
    for file in ["state_dict.pt", "wrapped.pt"] {
        let (tensors, _) = state_dict::read(&path(file)).unwrap();
        let names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
        let expected =
            ["weight", "transposed", "part", "parameter", "double", "half", "bfloat", "count", "empty"];
        assert_eq!(names, expected, "{file}");
        let tensor = |name: &str| &tensors.iter().find(|(other, _)| other == name).unwrap().1;
        assert_eq!(tensor("weight").size(), [3, 4]);
        assert_eq!(values(tensor("weight")), (0..12).map(f64::from).collect::<Vec<_>>());
        assert_eq!(tensor("transposed").size(), [4, 3]);
        assert_eq!(values(tensor("transposed"))[..4], [0.0, 4.0, 8.0, 1.0]);
        assert_eq!(values(tensor("part")), [6.0, 7.0, 10.0, 11.0]);
        assert_eq!(values(tensor("parameter")), [0.5, -2.0]);
        assert_eq!((tensor("double").kind(), values(tensor("double"))), (Kind::Double, vec![1e-300]));
        assert_eq!((tensor("half").kind(), values(tensor("half"))), (Kind::Half, vec![1.5, -3.0]));
        assert_eq!((tensor("bfloat").kind(), values(tensor("bfloat"))), (Kind::BFloat16, vec![2.5]));
        assert_eq!((tensor("count").size(), tensor("count").int64_value(&[])), (vec![], 1 << 40));
        assert_eq!(tensor("empty").size(), [0, 3]);
    }
}

#[test]
fn rejects_other_files_with_a_message() {
    let message = |bytes: &[u8]| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        state_dict::read(file.path()).unwrap_err().to_string()
    };
    let no_state_dict = state_dict::read(&path("no_state_dict.pt")).unwrap_err().to_string();
    assert!(no_state_dict.contains("state dict not found; save model.state_dict()"), "{no_state_dict}");
    let several = state_dict::read(&path("averaged.pt")).unwrap_err().to_string();
    assert!(
        several.contains("several state dicts of the same network: model, model_ema; save the one"),
        "{several}"
    );
    assert!(state_dict::read(&path("none.pt")).unwrap_err().to_string().contains("none.pt"));
    let whole = fs::read(path("state_dict.pt")).unwrap();
    let truncated = message(&whole[..whole.len() / 2]);
    assert!(truncated.contains("invalid PyTorch archive"), "{truncated}");
    assert!(message(b"PK\x03\x04").contains("invalid PyTorch archive"));
    assert!(message(b"PK").contains("invalid safetensors file"));
    // Changed bytes of the pickle: the archive's checksum detects them.
    let mut corrupt = whole;
    let place = corrupt.windows(14).position(|part| part == b"FloatStorage\nq").unwrap();
    corrupt[place..place + 5].copy_from_slice(b"Doubl");
    let corrupt = message(&corrupt);
    assert!(corrupt.to_lowercase().contains("checksum"), "{corrupt}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// A real archive with changed bytes gives tensors or an error, not a panic.
    #[test]
    fn a_damaged_archive_does_not_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = fs::read(path("state_dict.pt")).unwrap();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let _ = state_dict::read(file.path());
    }
}
