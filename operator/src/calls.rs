//! Every call to the API server has a deadline, and its error says what was asked for.

use std::time::Duration;

use kube::core::Status;

/// How long the API server may take for one answer, the client's own retries included.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// A call to the API server that brought no answer or a refusal.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("cannot {operation}: timed out after {} s", TIMEOUT.as_secs())]
    Timeout {
        /// What was asked for.
        operation: String,
    },
    /// A refusal, or no connection.
    #[error("cannot {operation}: {}", display_message(source))]
    Api {
        /// What was asked for.
        operation: String,
        /// The client's error.
        source: Box<kube::Error>,
    },
}

impl CallError {
    /// The API server's own words, where it answered.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout { .. } => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    /// Whether the object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    /// Whether the API server understood and will not do it: trying again at once is pointless.
    pub fn is_rejection(&self) -> bool {
        self.status().is_some_and(|status| matches!(status.code, 400 | 403 | 422))
    }
}

/// The client's error without the debug print of the whole status object.
fn display_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Waits for an answer of the API server, at most [`TIMEOUT`]. `operation` completes "cannot …".
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

    fn refused(code: u16, reason: &str) -> CallError {
        let status = Status::failure("exceeded quota: gpus", reason).with_code(code);
        CallError::Api {
            operation: "apply StatefulSet a/b".into(),
            source: Box::new(kube::Error::Api(status.boxed())),
        }
    }

    #[test]
    fn errors_say_what_was_asked_for_and_what_came_back() {
        assert_eq!(
            refused(403, "Forbidden").to_string(),
            "cannot apply StatefulSet a/b: exceeded quota: gpus"
        );
        let timeout = CallError::Timeout { operation: "list the pods of a/b".into() }.to_string();
        assert_eq!(timeout, "cannot list the pods of a/b: timed out after 10 s");
    }

    #[test]
    fn refusals_are_told_apart() {
        assert!(refused(403, "Forbidden").is_rejection());
        assert!(refused(422, "Invalid").is_rejection());
        assert!(!refused(409, "Conflict").is_rejection());
        assert!(refused(409, "Conflict").is_conflict());
        assert!(refused(404, "NotFound").is_not_found());
        assert!(!refused(500, "InternalError").is_rejection());
    }
}
