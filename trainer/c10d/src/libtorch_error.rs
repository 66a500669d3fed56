//! Error messages of libtorch, CUDA, cuDNN and NCCL: their kind, and their text for people. Pure.

use tch::TchError;

/// The kind of an error message of libtorch, CUDA, cuDNN or NCCL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibtorchErrorKind {
    /// Out of memory on the host or a device.
    OutOfMemory,
    /// A device failure.
    Device,
    /// Communication between ranks.
    Communication,
    /// Anything else.
    Other,
}

/// Prefixes of the messages that libtorch, CUDA and cuDNN give for a device failure.
const DEVICE_PATTERNS: [&str; 6] = [
    "cuda error",
    "cudnn_status_",
    "cublas_status_",
    "cuda driver error",
    "device-side assert",
    "cudnn error",
];

/// Classifies a libtorch error message. Also takes the last output of a process that NCCL's watchdog aborted.
pub fn classify_libtorch_error(message: &str) -> LibtorchErrorKind {
    const MEMORY_PATTERNS: [&str; 3] = ["not enough memory", "can't allocate memory", "out of memory"];
    let message = message.to_lowercase();
    let contains_any = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    if contains_any(&MEMORY_PATTERNS) {
        LibtorchErrorKind::OutOfMemory
    } else if contains_any(&DEVICE_PATTERNS) {
        LibtorchErrorKind::Device
    } else if contains_any(&["nccl"]) {
        LibtorchErrorKind::Communication
    } else {
        LibtorchErrorKind::Other
    }
}

/// The message of an error of libtorch in one line, without the C++ stack that libtorch appends.
pub fn libtorch_message(error: &TchError) -> String {
    let message = match error {
        TchError::Torch(message) => message.clone(),
        other => other.to_string(),
    };
    format!("libtorch: {}", first_line(&message))
}

/// The first line that is not empty.
pub(crate) fn first_line(message: &str) -> &str {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("no reason is given")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_messages_of_devices() {
        for (message, reason) in [
            (
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB",
                LibtorchErrorKind::OutOfMemory,
            ),
            ("CUDA error: an illegal memory access was encountered", LibtorchErrorKind::Device),
            ("CUDA error: uncorrectable ECC error encountered", LibtorchErrorKind::Device),
            ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", LibtorchErrorKind::Device),
            (
                "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
                LibtorchErrorKind::Device,
            ),
            ("NCCL error in: NCCLUtils.cpp:94, unhandled system error", LibtorchErrorKind::Communication),
            (
                "[Rank 1] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)",
                LibtorchErrorKind::Communication,
            ),
        ] {
            assert_eq!(classify_libtorch_error(message), reason, "{message}");
        }
        assert_eq!(classify_libtorch_error("shape mismatch"), LibtorchErrorKind::Other);
    }

    #[test]
    fn messages_have_no_stack() {
        let message = "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'\n\nException raised from f at \
                       g.cpp:1 (most recent call first):\nframe #0: h + 0x9d";
        let error = TchError::Torch(message.to_owned());
        assert_eq!(libtorch_message(&error), "libtorch: CUDA error: out of memory");
        assert_eq!(libtorch_message(&TchError::Torch(String::new())), "libtorch: no reason is given");
        assert_eq!(
            libtorch_message(&TchError::Shape("[2]".into())),
            format!("libtorch: {}", TchError::Shape("[2]".into()))
        );
    }
}
