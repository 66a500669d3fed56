//! Calls to the API server: each has a timeout, and its error names the operation.

use std::time::Duration;

use kube::core::Status;

/// Timeout of one call, including the client's retries.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A failed call to the API server.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No response within [`TIMEOUT`].
    #[error("cannot {operation}: timed out after {} s", TIMEOUT.as_secs())]
    Timeout {
        /// The operation, as a verb phrase.
        operation: String,
    },
    /// An error status, or no connection.
    #[error("cannot {operation}: {}", display_message(source))]
    Api {
        /// The operation, as a verb phrase.
        operation: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
}

impl CallError {
    /// The status that the API server returned.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout { .. } => None,
        }
    }

    /// Whether the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// Whether the object has changed since it was read, or exists although it was to be created.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }

    /// Whether the object is invalid (422), or cannot even be decoded (400).
    pub fn is_invalid(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 422))
    }

    /// Whether the API server rejected the request: an immediate retry would fail too. An admission webhook that does not
    /// answer is an error 500.
    pub fn is_rejection(&self) -> bool {
        self.status().is_some_and(|status| !matches!(status.code, 401 | 409 | 429 | 503 | 504))
    }
}

/// The message of an error, without the debug output of the whole status.
fn display_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Waits for a response of the API server for at most [`TIMEOUT`]. `operation` completes "cannot …".
pub async fn call<T>(
    operation: impl Into<String>,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(CallError::Api { operation: operation.into(), source: Box::new(source) }),
        Err(_) => Err(CallError::Timeout { operation: operation.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(code: u16, reason: &str) -> CallError {
        let status = Status::failure("exceeded quota: gpus", reason).with_code(code);
        CallError::Api {
            operation: "apply StatefulSet a/b".into(),
            source: Box::new(kube::Error::Api(status.boxed())),
        }
    }

    #[test]
    fn errors_name_the_operation_and_the_cause() {
        assert_eq!(
            rejected(403, "Forbidden").to_string(),
            "cannot apply StatefulSet a/b: exceeded quota: gpus"
        );
        let timeout = CallError::Timeout { operation: "list the pods of a/b".into() }.to_string();
        assert_eq!(timeout, "cannot list the pods of a/b: timed out after 10 s");
    }

    #[test]
    fn classifies_statuses() {
        assert!(rejected(403, "Forbidden").is_rejection());
        assert!(rejected(422, "Invalid").is_rejection());
        assert!(!rejected(409, "Conflict").is_rejection());
        assert!(rejected(409, "Conflict").is_conflict() && rejected(409, "AlreadyExists").is_conflict());
        assert!(rejected(404, "NotFound").is_not_found());
        assert!(rejected(500, "InternalError").is_rejection());
        assert!(!rejected(503, "ServiceUnavailable").is_rejection());
        assert!(rejected(422, "Invalid").is_invalid() && !rejected(403, "Forbidden").is_invalid());
    }
}
