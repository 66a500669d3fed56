//! Errors of this crate, classified by how the caller can react. Pure.

use std::fmt;

use tch::TchError;
use thiserror::Error;

use crate::libtorch_error::first_line;

/// The failed operation, the rank that reports it, and the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorDetails {
    /// The operation, for example "`all_reduce`".
    pub operation: String,
    /// The rank that reports the error and the world size, if there is a group.
    pub member: Option<Member>,
    /// The first line of libtorch's message, or a message of this crate.
    pub message: String,
}

/// Rank and world size of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// From 0 to `world_size - 1`.
    pub rank: usize,
    /// The number of processes in the group.
    pub world_size: usize,
}

impl fmt::Display for ErrorDetails {
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
/// store is broken, but a new one may work. The other errors are permanent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum C10dError {
    /// A peer did not respond, or a key of the store was not set, within the timeout: the peer hangs, is slow or is
    /// unreachable.
    #[error("timed out: {0}")]
    Timeout(ErrorDetails),
    /// The connection to a peer was lost: its process exited, or it left the group.
    #[error("lost the connection to a peer: {0}")]
    PeerLost(ErrorDetails),
    /// The store's host does not respond or closed the connection.
    #[error("cannot reach the store: {0}")]
    StoreLost(ErrorDetails),
    /// The processes do not train the same model: their parameters or bucket sizes differ.
    #[error("model mismatch between ranks: {0}")]
    ModelMismatch(ErrorDetails),
    /// This crate rejected an argument before it sent anything.
    #[error("invalid argument: {0}")]
    InvalidArgument(ErrorDetails),
    /// Any other failure of libtorch.
    #[error("{0}")]
    Other(ErrorDetails),
}

/// The variants of [`C10dError`] that a message of libtorch can indicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants of C10dError of the same names are documented")]
pub enum C10dErrorKind {
    Timeout,
    PeerLost,
    StoreLost,
    ModelMismatch,
    Other,
}

/// Parts of libtorch's messages, in lower case, and their kinds. The first match decides. The store's sockets also time out
/// and are reset, so their patterns are first.
const MESSAGE_PATTERNS: [(&str, C10dErrorKind); 22] = [
    ("appears not to match", C10dErrorKind::ModelMismatch),
    ("ddp expects same model", C10dErrorKind::ModelMismatch),
    ("got 0 bytes. connection was likely closed", C10dErrorKind::StoreLost),
    ("sent 0 bytes. connection was likely closed", C10dErrorKind::StoreLost),
    ("socketimpl(", C10dErrorKind::StoreLost),
    ("client socket has failed to connect", C10dErrorKind::StoreLost),
    ("client socket has timed out", C10dErrorKind::StoreLost),
    ("tcpstore is damaged", C10dErrorKind::StoreLost),
    ("wait timeout after", C10dErrorKind::Timeout),
    ("timed out", C10dErrorKind::Timeout),
    ("timeout", C10dErrorKind::Timeout),
    // NCCL adds the name and a hint to its errors.
    ("ncclremoteerror", C10dErrorKind::PeerLost),
    ("remote process exited", C10dErrorKind::PeerLost),
    ("nccl communicator was aborted", C10dErrorKind::PeerLost),
    ("connection closed by peer", C10dErrorKind::PeerLost),
    ("connection reset by peer", C10dErrorKind::PeerLost),
    ("connection refused", C10dErrorKind::PeerLost),
    ("broken pipe", C10dErrorKind::PeerLost),
    ("socket closed", C10dErrorKind::PeerLost),
    ("socket not connected", C10dErrorKind::PeerLost),
    ("no route to host", C10dErrorKind::PeerLost),
    ("network is unreachable", C10dErrorKind::PeerLost),
];

impl C10dError {
    /// Classifies a message of libtorch.
    pub fn classify(message: &str) -> C10dErrorKind {
        let message = message.to_lowercase();
        MESSAGE_PATTERNS
            .iter()
            .find(|(part, _)| message.contains(part))
            .map_or(C10dErrorKind::Other, |(_, kind)| *kind)
    }

    /// Converts an error of `f_backward` on parameters with a [`Reducer`](crate::Reducer). A collective that fails in the
    /// backward pass is reported as a `TchError`. Errors of the computation become [`Other`](Self::Other). `member` is the
    /// group's [`member`](crate::ProcessGroup::member).
    pub fn from_backward(error: &TchError, member: Member) -> Self {
        let message = match error {
            TchError::Torch(message) => message.clone(),
            other => other.to_string(),
        };
        Self::from_message("backward", Some(member), &message)
    }

    /// The failed operation, the rank that reports it, and the message.
    pub fn details(&self) -> &ErrorDetails {
        match self {
            Self::Timeout(details)
            | Self::PeerLost(details)
            | Self::StoreLost(details)
            | Self::ModelMismatch(details)
            | Self::InvalidArgument(details)
            | Self::Other(details) => details,
        }
    }

    /// Whether the communication failed, so that a retry in a new group or with a new store may succeed.
    pub fn is_communication(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::PeerLost(_) | Self::StoreLost(_))
    }

    /// The error for a message of libtorch.
    pub(crate) fn from_message(operation: &str, member: Option<Member>, message: &str) -> Self {
        let details =
            ErrorDetails { operation: operation.to_owned(), member, message: first_line(message).to_owned() };
        match Self::classify(message_without_backtrace(message)) {
            C10dErrorKind::Timeout => Self::Timeout(details),
            C10dErrorKind::PeerLost => Self::PeerLost(details),
            C10dErrorKind::StoreLost => Self::StoreLost(details),
            C10dErrorKind::ModelMismatch => Self::ModelMismatch(details),
            C10dErrorKind::Other => Self::Other(details),
        }
    }

    /// The error for a message of libtorch about an operation of a store, whose only peer is its host.
    pub(crate) fn from_store_message(operation: &str, message: &str) -> Self {
        match Self::from_message(operation, None, message) {
            Self::PeerLost(details) => Self::StoreLost(details),
            error => error,
        }
    }

    pub(crate) fn invalid(operation: &str, member: Option<Member>, message: impl Into<String>) -> Self {
        Self::InvalidArgument(ErrorDetails {
            operation: operation.to_owned(),
            member,
            message: message.into(),
        })
    }
}

/// The message without the C++ stack that libtorch appends.
fn message_without_backtrace(message: &str) -> &str {
    message.split("\nException raised from ").next().unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Member = Member { rank: 1, world_size: 3 };

    #[test]
    fn classifies_messages_of_c10d() {
        for (message, kind) in [
            (
                "[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1000ms for \
                 recv operation to complete",
                C10dErrorKind::Timeout,
            ),
            ("Application timeout caused pair closure", C10dErrorKind::Timeout),
            ("wait timeout after 1000ms, keys: /gloo/0/1", C10dErrorKind::Timeout),
            ("Socket Timeout", C10dErrorKind::Timeout),
            (
                "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer \
                 [127.0.0.1]:41704",
                C10dErrorKind::PeerLost,
            ),
            (
                "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Read error [127.0.0.1]:46124: Connection \
                 reset by peer",
                C10dErrorKind::PeerLost,
            ),
            ("Broken pipe", C10dErrorKind::PeerLost),
            (
                "NCCL error in: NCCLUtils.hpp:220, remote process exited or there was a network error, NCCL version \
                 2.28.9",
                C10dErrorKind::PeerLost,
            ),
            ("NCCL communicator was aborted on rank 1.", C10dErrorKind::PeerLost),
            (
                "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=5, OpType=ALLREDUCE)",
                C10dErrorKind::Timeout,
            ),
            (
                "Gloo connectFullMesh failed with [/pytorch/gloo/pair.cc:1] connect [10.0.0.2]:1: No route to host",
                C10dErrorKind::PeerLost,
            ),
            (
                "Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server shutdown or \
                 crash?",
                C10dErrorKind::StoreLost,
            ),
            (
                "recvValue failed on SocketImpl(fd=4, addr=[::1]:1, remote=[::1]:2): Connection reset by peer",
                C10dErrorKind::StoreLost,
            ),
            (
                "The client socket has timed out after 300ms while trying to connect to (127.0.0.1, 41283).",
                C10dErrorKind::StoreLost,
            ),
            (
                "The client socket has failed to connect to any network address of (pod-0, 29500).",
                C10dErrorKind::StoreLost,
            ),
            (
                "[3]: params[3] in this process with sizes [2, 3] appears not to match sizes of the same param in \
                 process 0.",
                C10dErrorKind::ModelMismatch,
            ),
            (
                "DDP expects same model across all ranks, but Rank 1 has 3 params, while rank 0 has inconsistent 2 \
                 params.",
                C10dErrorKind::ModelMismatch,
            ),
            ("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)", C10dErrorKind::Other),
            ("", C10dErrorKind::Other),
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
    fn classification_ignores_the_stack_but_not_later_lines() {
        let stack = "out of memory\nException raised from f at g.cpp:1\nframe #0: Timed out waiting";
        assert!(matches!(C10dError::from_message("backward", None, stack), C10dError::Other(_)));
        let lines = "\nThe following operation failed:\nTimed out waiting 5ms for recv operation to complete";
        let error = C10dError::from_message("backward", None, lines);
        assert!(matches!(error, C10dError::Timeout(_)));
        assert_eq!(error.details().message, "The following operation failed:");
    }

    #[test]
    fn recognises_a_collective_that_fails_in_the_backward_pass() {
        let lost = TchError::Torch("[pair.cc:547] Connection closed by peer [127.0.0.1]:5".to_owned());
        let error = C10dError::from_backward(&lost, MEMBER);
        assert!(matches!(error, C10dError::PeerLost(_)));
        assert_eq!(error.details().operation, "backward");
        assert_eq!(error.details().member, Some(MEMBER));
        let other = C10dError::from_backward(&TchError::Shape("no".to_owned()), MEMBER);
        assert_eq!(other.to_string(), "backward on rank 1 of 3: invalid shape: no");
        assert!(!other.is_communication());
    }

    #[test]
    fn a_lost_connection_of_a_store_is_store_lost() {
        let error = C10dError::from_store_message("store get \"key\"", "Broken pipe");
        assert_eq!(error.to_string(), "cannot reach the store: store get \"key\": Broken pipe");
    }
}
