//! A webdataset shard. If the first byte is odd, the header checksums are corrected, so that the headers are accepted.
#![no_main]

use datjob_data::DataError;
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
/// The checksum field of a header, in octal digits. Its bytes count as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;

fn fix_checksum(header: &mut [u8]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut shard = rest.to_vec();
    if choice % 2 == 1 {
        shard.chunks_exact_mut(BLOCK).for_each(fix_checksum);
    }
    let dir = datjob_fuzz::temporary_folder(&[("train-0.tar", &shard), ("val-0.tar", &shard)]);
    let spec = serde_json::from_str(
        r#"{"dataset": "webdataset", "imageSize": 8, "source": {"image": {"reference": "x"}}}"#,
    );
    let Ok(data) = datjob_data::load(&spec.expect("a spec"), dir.path(), 1) else { return };
    for image in 0..data.train.len() {
        assert!(i64::from(data.train.label(image)) < data.classes);
        // The ranges of the index must be within the shard.
        let read = data.train.read(&[image], None);
        assert!(!matches!(read, Err(DataError::Read { .. })), "image {image}: {read:?}");
    }
});
