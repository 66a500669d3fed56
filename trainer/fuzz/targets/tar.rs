//! A shard of a webdataset. After an odd first byte the headers' checksums are made right, so that they are believed.
#![no_main]

use datjob_data::DataError;
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
/// Where a header has its checksum, in octal digits; it counts as spaces.
const CHECKSUM: std::ops::Range<usize> = 148..156;

fn make_right(header: &mut [u8]) {
    header[CHECKSUM].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mut shard = rest.to_vec();
    if choice % 2 == 1 {
        shard.chunks_exact_mut(BLOCK).for_each(make_right);
    }
    let dir = datjob_fuzz::folder(&[("train-0.tar", &shard), ("val-0.tar", &shard)]);
    let spec = serde_json::from_str(
        r#"{"dataset": "webdataset", "imageSize": 8, "source": {"image": {"reference": "x"}}}"#,
    );
    let Ok(data) = datjob_data::load(&spec.expect("a spec"), dir.path(), 1) else { return };
    for image in 0..data.train.len() {
        assert!(i64::from(data.train.label(image)) < data.classes);
        // What the index says lies within the shard.
        let read = data.train.read(&[image], None);
        assert!(!matches!(read, Err(DataError::Read { .. })), "image {image}: {read:?}");
    }
});
