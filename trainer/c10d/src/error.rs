//! What can go wrong between processes, told apart by what the caller can do about it.

use std::fmt;

use tch::TchError;
use thiserror::Error;

/// What was asked for, by whom, and what libtorch said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation, as in "`all_reduce`".
    pub operation: String,
    /// The rank that reports it and the size of its world, where there is a group.
    pub member: Option<Member>,
    /// The first line of libtorch's message, or this crate's own sentence.
    pub message: String,
}

/// A process's place in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// From 0 to `world_size - 1`.
    pub rank: usize,
    /// The number of processes in the group.
    pub world_size: usize,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operation)?;
        if let Some(Member { rank, world_size }) = self.member {
            write!(f, " on rank {rank} of {world_size}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A failed operation of this crate.
///
/// After [`Timeout`](Self::Timeout), [`PeerLost`](Self::PeerLost) or [`StoreLost`](Self::StoreLost) the group or the
/// store is of no more use, and a new one may well work. The others come back on every try.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum C10dError {
    /// A peer, or a key of the store, did not come within the timeout: the peer hangs, is cut off, or is behind.
    #[error("timed out: {0}")]
    Timeout(Failure),
    /// The connection to a peer broke: its process ended, or it left the group.
    #[error("lost the connection to a peer: {0}")]
    PeerLost(Failure),
    /// The store's host does not answer or has closed the connection.
    #[error("cannot reach the store: {0}")]
    StoreLost(Failure),
    /// The processes do not train the same model: they disagree about parameters or bucket sizes.
    #[error("model mismatch between ranks: {0}")]
    ModelMismatch(Failure),
    /// An argument that this crate refuses before anything is sent.
    #[error("invalid argument: {0}")]
    InvalidArgument(Failure),
    /// Any other failure of libtorch.
    #[error("{0}")]
    Other(Failure),
}

/// The variants of [`C10dError`] that a message of libtorch can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants of C10dError of the same names are documented")]
pub enum FailureKind {
    Timeout,
    PeerLost,
    StoreLost,
    ModelMismatch,
    Other,
}

/// Parts of libtorch's messages, in lower case, and what they mean. The first that occurs decides: the store's
/// sockets also time out and are reset, so they come first.
const MESSAGES: [(&str, FailureKind); 22] = [
    ("appears not to match", FailureKind::ModelMismatch),
    ("ddp expects same model", FailureKind::ModelMismatch),
    ("got 0 bytes. connection was likely closed", FailureKind::StoreLost),
    ("sent 0 bytes. connection was likely closed", FailureKind::StoreLost),
    ("socketimpl(", FailureKind::StoreLost),
    ("client socket has failed to connect", FailureKind::StoreLost),
    ("client socket has timed out", FailureKind::StoreLost),
    ("tcpstore is damaged", FailureKind::StoreLost),
    ("wait timeout after", FailureKind::Timeout),
    ("timed out", FailureKind::Timeout),
    ("timeout", FailureKind::Timeout),
    // NCCL names the kind of its errors, and leaves a hint.
    ("ncclremoteerror", FailureKind::PeerLost),
    ("remote process exited", FailureKind::PeerLost),
    ("nccl communicator was aborted", FailureKind::PeerLost),
    ("connection closed by peer", FailureKind::PeerLost),
    ("connection reset by peer", FailureKind::PeerLost),
    ("connection refused", FailureKind::PeerLost),
    ("broken pipe", FailureKind::PeerLost),
    ("socket closed", FailureKind::PeerLost),
    ("socket not connected", FailureKind::PeerLost),
    ("no route to host", FailureKind::PeerLost),
    ("network is unreachable", FailureKind::PeerLost),
];

impl C10dError {
    /// What a message of libtorch means. Reads nothing but the message.
    pub fn classify(message: &str) -> FailureKind {
        let message = message.to_lowercase();
        MESSAGES.iter().find(|(part, _)| message.contains(part)).map_or(FailureKind::Other, |(_, kind)| *kind)
    }

    /// The error that `f_backward` returned, where a [`Reducer`](crate::Reducer) hooks the parameters: a collective
    /// that fails inside the backward pass comes out as a `TchError`. Errors of the computation itself become
    /// [`Other`](Self::Other). `member` is the group's [`member`](crate::ProcessGroup::member).
    pub fn from_backward(error: &TchError, member: Member) -> Self {
        let message = match error {
            TchError::Torch(message) => message.clone(),
            other => other.to_string(),
        };
        Self::from_message("backward", Some(member), &message)
    }

    /// What was asked for, by whom, and what libtorch said.
    pub fn failure(&self) -> &Failure {
        match self {
            Self::Timeout(failure)
            | Self::PeerLost(failure)
            | Self::StoreLost(failure)
            | Self::ModelMismatch(failure)
            | Self::InvalidArgument(failure)
            | Self::Other(failure) => failure,
        }
    }

    /// Whether the communication failed, so that the same may work in a new group or with a new store.
    pub fn is_communication(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::PeerLost(_) | Self::StoreLost(_))
    }

    /// The error for a message of libtorch.
    pub(crate) fn from_message(operation: &str, member: Option<Member>, message: &str) -> Self {
        let failure =
            Failure { operation: operation.to_owned(), member, message: first_line(message).to_owned() };
        match Self::classify(message_without_backtrace(message)) {
            FailureKind::Timeout => Self::Timeout(failure),
            FailureKind::PeerLost => Self::PeerLost(failure),
            FailureKind::StoreLost => Self::StoreLost(failure),
            FailureKind::ModelMismatch => Self::ModelMismatch(failure),
            FailureKind::Other => Self::Other(failure),
        }
    }

    /// The error for a message of libtorch about an operation of a store, whose only peer is its host.
    pub(crate) fn from_store_message(operation: &str, message: &str) -> Self {
        match Self::from_message(operation, None, message) {
            Self::PeerLost(failure) => Self::StoreLost(failure),
            error => error,
        }
    }

    pub(crate) fn invalid(operation: &str, member: Option<Member>, message: impl Into<String>) -> Self {
        Self::InvalidArgument(Failure { operation: operation.to_owned(), member, message: message.into() })
    }
}

/// The message up to where libtorch appends the C++ stack.
fn message_without_backtrace(message: &str) -> &str {
    message.split("\nException raised from ").next().unwrap_or(message)
}

/// The first line that says something.
fn first_line(message: &str) -> &str {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty());
    line.unwrap_or("libtorch reported no reason")
}

/// What failed, by an error message of libtorch, CUDA, cuDNN or NCCL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LibtorchErrorKind {
    /// Memory of the host or of a device.
    OutOfMemory,
    /// A device that does not do what it should.
    Device,
    /// Communication among ranks.
    Communication,
    /// Anything else.
    Other,
}

/// Prefixes of the messages that libtorch, CUDA and cuDNN give for a device failure.
const DEVICE: [&str; 6] = [
    "cuda error",
    "cudnn_status_",
    "cublas_status_",
    "cuda driver error",
    "device-side assert",
    "cudnn error",
];

/// Classifies a libtorch error message. Also takes the last output of a process that NCCL's watchdog aborted.
pub fn classify_libtorch_error(message: &str) -> LibtorchErrorKind {
    const MEMORY: [&str; 3] = ["not enough memory", "can't allocate memory", "out of memory"];
    let message = message.to_lowercase();
    let says = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    if says(&MEMORY) {
        LibtorchErrorKind::OutOfMemory
    } else if says(&DEVICE) {
        LibtorchErrorKind::Device
    } else if says(&["nccl"]) {
        LibtorchErrorKind::Communication
    } else {
        LibtorchErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Member = Member { rank: 1, world_size: 3 };

    #[test]
    fn messages_of_libtorch_are_told_apart() {
        for (message, kind) in [
            (
                "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for \
                 recv operation to complete",
                FailureKind::Timeout,
            ),
            ("Application timeout caused pair closure", FailureKind::Timeout),
            ("wait timeout after 1000ms, keys: /gloo/0/1", FailureKind::Timeout),
            ("Socket Timeout", FailureKind::Timeout),
            (
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer \
                 [127.0.0.1]:41704",
                FailureKind::PeerLost,
            ),
            (
                "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Read error [127.0.0.1]:46124: Connection \
                 reset by peer",
                FailureKind::PeerLost,
            ),
            ("Broken pipe", FailureKind::PeerLost),
            (
                "NCCL error in: NCCLUtils.hpp:220, remote process exited or there was a network error, NCCL version \
                 2.28.9",
                FailureKind::PeerLost,
            ),
            ("NCCL communicator was aborted on rank 1.", FailureKind::PeerLost),
            (
                "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)",
                FailureKind::Timeout,
            ),
            (
                "Gloo connectFullMesh failed with [/pytorch/gloo/pair.cc:1] connect [10.0.0.2]:1: No route to host",
                FailureKind::PeerLost,
            ),
            (
                "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or \
                 crash?",
                FailureKind::StoreLost,
            ),
            (
                "recvValue failed on SocketImpl(fd=4, addr=[::1]:1, remote=[::1]:2): Connection reset by peer",
                FailureKind::StoreLost,
            ),
            (
                "The client socket has timed out after 300ms while trying to connect to (127.0.0.1, 41283).",
                FailureKind::StoreLost,
            ),
            (
                "The client socket has failed to connect to any network address of (pod-0, 29500).",
                FailureKind::StoreLost,
            ),
            (
                "[3]: params[3] in this process with sizes [2, 3] appears not to match sizes of the same param in \
                 process 0.",
                FailureKind::ModelMismatch,
            ),
            (
                "DDP expects same model across all ranks, but Rank 1 has 3 params, while rank 0 has inconsistent 2 \
                 params.",
                FailureKind::ModelMismatch,
            ),
            ("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)", FailureKind::Other),
            ("", FailureKind::Other),
        ] {
            assert_eq!(C10dError::classify(message), kind, "{message}");
        }
    }

    #[test]
    fn an_error_is_one_sentence_with_operation_and_rank() {
        let message = "Connection closed by peer [10.0.0.1]:1\nException raised from wait at pair.cc:1 (most recent \
                       call first):\nframe #0: c10::Error::Error(timeout)";
        let error = C10dError::from_message("all_reduce", Some(MEMBER), message);
        assert_eq!(
            error.to_string(),
            "lost the connection to a peer: all_reduce on rank 1 of 3: Connection closed by peer [10.0.0.1]:1"
        );
        assert!(error.is_communication());
    }

    #[test]
    fn the_stack_does_not_count_but_later_lines_do() {
        let stack = "out of memory\nException raised from f at g.cpp:1\nframe #0: Timed out waiting";
        assert!(matches!(C10dError::from_message("backward", None, stack), C10dError::Other(_)));
        let lines = "\nThe following operation failed:\nTimed out waiting 5ms for recv operation to complete";
        let error = C10dError::from_message("backward", None, lines);
        assert!(matches!(error, C10dError::Timeout(_)));
        assert_eq!(error.failure().message, "The following operation failed:");
    }

    #[test]
    fn a_collective_that_fails_in_backward_is_recognised() {
        let lost = TchError::Torch("[pair.cc:547] Connection closed by peer [127.0.0.1]:5".to_owned());
        let error = C10dError::from_backward(&lost, MEMBER);
        assert!(matches!(error, C10dError::PeerLost(_)));
        assert_eq!(error.failure().operation, "backward");
        assert_eq!(error.failure().member, Some(MEMBER));
        let other = C10dError::from_backward(&TchError::Shape("no".to_owned()), MEMBER);
        assert_eq!(other.to_string(), "backward on rank 1 of 3: invalid shape: no");
        assert!(!other.is_communication());
    }

    #[test]
    fn a_broken_connection_of_a_store_is_a_lost_store() {
        let error = C10dError::from_store_message("store get \"key\"", "Broken pipe");
        assert_eq!(error.to_string(), "cannot reach the store: store get \"key\": Broken pipe");
    }

    #[test]
    fn messages_of_libtorch_are_classified() {
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
}
