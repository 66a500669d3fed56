//! Verifies that all processes train the same model.
//!
//! libtorch's `verify_params_across_processes` broadcasts descriptions and assumes equal lengths, and only the ranks that
//! differ from rank 0 get an error. This function compares any two models. All ranks get the same result, so no rank waits
//! in the next collective.

use tch::{Device, Tensor};

use crate::{
    error::{C10dError, ErrorDetails},
    process_group::ProcessGroup,
};

/// Returns an error with the first difference in every process if `lines` differs between any two.
pub(crate) fn verify_same_on_all_ranks(
    group: &ProcessGroup,
    operation: &str,
    lines: &[String],
) -> Result<(), C10dError> {
    if group.world_size() == 1 {
        return Ok(());
    }
    let text = lines.join("\n");
    let local = [i64::try_from(text.len()).expect("a length fits"), fingerprint(text.as_bytes())];
    let summaries = group.all_gather(&Tensor::from_slice(&local))?;
    let summaries = rows::<i64>(&summaries).map_err(|message| group.error(operation, &message))?;
    if summaries.iter().all(|summary| summary == &summaries[0]) {
        return Ok(());
    }

    // They differ: exchange the descriptions, padded to the longest.
    let longest = summaries.iter().map(|summary| summary[0]).max().unwrap_or_default();
    let mut padded = text.into_bytes();
    padded.resize(usize::try_from(longest).expect("a length is not negative"), b'\n');
    let texts = group.all_gather(&Tensor::from_slice(&padded))?;
    let texts = rows::<u8>(&texts).map_err(|message| group.error(operation, &message))?;
    let descriptions: Vec<String> =
        texts.iter().map(|text| String::from_utf8_lossy(text).trim_end_matches('\n').to_owned()).collect();
    Err(C10dError::ModelMismatch(ErrorDetails {
        operation: operation.to_owned(),
        member: Some(group.member()),
        message: first_difference(&descriptions)
            .unwrap_or_else(|| "the model descriptions differ".to_owned()),
    }))
}

/// The first line that differs from rank 0, in the first rank that has one.
fn first_difference(descriptions: &[String]) -> Option<String> {
    let first: Vec<&str> = descriptions.first()?.lines().collect();
    descriptions.iter().enumerate().skip(1).find_map(|(rank, description)| {
        let other: Vec<&str> = description.lines().collect();
        let at = (0..first.len().max(other.len())).find(|&i| first.get(i) != other.get(i))?;
        let line = |lines: &[&str]| lines.get(at).map_or("nothing".to_owned(), |line| format!("\"{line}\""));
        Some(format!("rank 0 has {}, rank {rank} has {}", line(&first), line(&other)))
    })
}

/// The line of a parameter in a description.
pub(crate) fn describe_parameter(name: &str, parameter: &Tensor) -> String {
    let device = match parameter.device() {
        Device::Cuda(_) => "cuda".to_owned(),
        device => format!("{device:?}").to_lowercase(),
    };
    format!(
        "{name}: {:?} {:?} strides {:?} on {device}",
        parameter.kind(),
        parameter.size(),
        parameter.stride()
    )
}

/// FNV-1a, which is the same in every build.
fn fingerprint(bytes: &[u8]) -> i64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

fn rows<T: tch::kind::Element + Copy>(tensor: &Tensor) -> Result<Vec<Vec<T>>, String>
where
    Vec<Vec<T>>: for<'a> TryFrom<&'a Tensor, Error = tch::TchError>,
{
    Vec::<Vec<T>>::try_from(tensor).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(descriptions: &[&str]) -> Option<String> {
        first_difference(&descriptions.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn equal_descriptions_have_no_difference() {
        assert_eq!(difference(&["a\nb", "a\nb", "a\nb"]), None);
        assert_eq!(difference(&["a"]), None);
    }

    #[test]
    fn reports_the_first_line_that_differs() {
        let message = difference(&["a\nb\nc", "a\nb\nc", "a\nx\ny"]).unwrap();
        assert_eq!(message, "rank 0 has \"b\", rank 2 has \"x\"");
    }

    #[test]
    fn reports_a_missing_line() {
        assert_eq!(difference(&["a", "a\nb"]).unwrap(), "rank 0 has nothing, rank 1 has \"b\"");
        assert_eq!(difference(&["a\nb", "a"]).unwrap(), "rank 0 has \"b\", rank 1 has nothing");
    }

    #[test]
    fn fingerprint_is_fnv_1a() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325_u64.cast_signed());
        assert_eq!(fingerprint(b"foobar"), 0x8594_4171_f739_67e8_u64.cast_signed());
    }
}
