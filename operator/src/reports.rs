//! Reads the reports of jobs, each from pod 0 of its job. [`schedule`] decides when, [`poller`] reads.
//!
//! The trainer image is untrusted: time and size of the response are bounded, redirects are not followed, and the report
//! must name the expected job, pod and attempt.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use datjob_api::{
    contract,
    report::{Phase, Report},
};

pub mod poller;
pub mod schedule;

/// Timeout of a request.
pub const TIMEOUT: Duration = Duration::from_secs(2);

/// The sender that a report must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedSender<'a> {
    /// UID of the job.
    pub job_uid: &'a str,
    /// UID of the pod, from the API server.
    pub pod_uid: &'a str,
    /// The running attempt.
    pub attempt: u32,
}

/// A failure to read a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// No connection, or no response in time.
    #[error(
        "request to {address} failed: {message}; check whether a NetworkPolicy or a service mesh blocks the operator"
    )]
    Unreachable {
        /// The pod's address.
        address: SocketAddr,
        /// The cause.
        message: String,
    },
    /// An HTTP status other than 200.
    #[error("unexpected HTTP status {status} from {address}; check that spec.pod.image is a DatJob trainer")]
    Status {
        /// The pod's address.
        address: SocketAddr,
        /// The HTTP status.
        status: u16,
    },
    /// A response larger than [`contract::REPORT_MAX_BYTES`].
    #[error(
        "the response from {address} exceeds {} bytes; check that spec.pod.image is a DatJob trainer",
        contract::REPORT_MAX_BYTES
    )]
    TooLarge {
        /// The pod's address.
        address: SocketAddr,
    },
    /// Invalid JSON, or an inconsistent report.
    #[error("invalid report from {address}: {message}; operator and trainer versions may differ")]
    Malformed {
        /// The pod's address.
        address: SocketAddr,
        /// What is invalid.
        message: String,
    },
    /// The report of another job, pod or attempt.
    #[error("the report from {address} belongs to another {subject}; ignoring it")]
    Mismatch {
        /// The pod's address.
        address: SocketAddr,
        /// What differs.
        subject: &'static str,
    },
}

impl ReportError {
    /// Value of the metric label `outcome`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::Status { .. } => "status",
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::Mismatch { .. } => "mismatch",
        }
    }
}

/// Builder of an HTTP client without TLS certificates: pods serve plain HTTP, and the image contains no certificates.
pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    // reqwest panics without a crypto provider. The call fails if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([])
}

/// Reads reports.
#[derive(Clone, Debug)]
pub struct ReportReader(reqwest::Client);

impl ReportReader {
    /// Creates a reader.
    pub fn new() -> Result<Self, reqwest::Error> {
        client_builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(TIMEOUT)
            // An agent closes idle connections before the next poll.
            .pool_max_idle_per_host(0)
            .build()
            .map(Self)
    }

    /// Reads the report of the pod at `address`.
    pub async fn read(&self, address: IpAddr, expected: ExpectedSender<'_>) -> Result<Report, ReportError> {
        self.read_at(SocketAddr::new(address, contract::AGENT_PORT), expected).await
    }

    async fn read_at(
        &self,
        address: SocketAddr,
        expected: ExpectedSender<'_>,
    ) -> Result<Report, ReportError> {
        let unreachable =
            |error: reqwest::Error| ReportError::Unreachable { address, message: root_cause(&error) };
        let url = format!("http://{address}{}", contract::REPORT_PATH);
        let mut response = self.0.get(url).send().await.map_err(unreachable)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(ReportError::Status { address, status: response.status().as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > contract::REPORT_MAX_BYTES {
                return Err(ReportError::TooLarge { address });
            }
            body.extend_from_slice(&chunk);
        }
        check(address, &body, expected)
    }
}

fn check(address: SocketAddr, body: &[u8], expected: ExpectedSender<'_>) -> Result<Report, ReportError> {
    let malformed = |message: &str| ReportError::Malformed { address, message: message.to_owned() };
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    if let Some(path) = find_out_of_range(&json) {
        return Err(malformed(&format!("{path} exceeds the largest integer of Kubernetes, {}", i64::MAX)));
    }
    let report: Report = serde_json::from_value(json).map_err(|error| malformed(&error.to_string()))?;
    let mismatch = |subject| Err(ReportError::Mismatch { address, subject });
    if report.job_uid != expected.job_uid {
        return mismatch("job");
    }
    if report.pod_uid != expected.pod_uid {
        return mismatch("pod");
    }
    if report.attempt != expected.attempt {
        return mismatch("attempt");
    }
    match report.phase {
        Phase::Succeeded if report.results.is_none() => Err(malformed("phase Succeeded without results")),
        Phase::Failed if report.failure.is_none() => Err(malformed("phase Failed without a failure")),
        _ => Ok(report),
    }
}

/// The path of an integer that a status cannot hold: Kubernetes has 64-bit integers with a sign.
fn find_out_of_range(json: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    match json {
        Value::Number(number) => {
            number.as_u64().filter(|number| i64::try_from(*number).is_err()).map(|_| String::new())
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| find_out_of_range(item).map(|path| format!("[{index}]{path}"))),
        Value::Object(fields) => fields
            .iter()
            .find_map(|(name, field)| find_out_of_range(field).map(|path| format!(".{name}{path}"))),
        _ => None,
    }
}

/// The innermost error: the message of reqwest is only "error sending request".
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("timed out after {} s", TIMEOUT.as_secs());
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::*;

    const EXPECTED: ExpectedSender<'static> = ExpectedSender { job_uid: "job", pod_uid: "pod", attempt: 2 };

    fn report(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut json = serde_json::json!({
            "jobUid": "job", "podUid": "pod", "attempt": 2, "generation": 1, "phase": "Training",
            "worldSize": 2, "podsJoined": 2
        });
        change(&mut json);
        serde_json::to_vec(&json).unwrap()
    }

    /// Serves one response and reads it.
    async fn serve_and_read(answer: Vec<u8>) -> Result<Report, ReportError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(&answer);
        });
        ReportReader::new().unwrap().read_at(address, EXPECTED).await
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn reads_a_report() {
        assert_eq!(serve_and_read(ok(&report(|_| {}))).await.unwrap().phase, Phase::Training);
    }

    #[tokio::test]
    async fn rejects_reports_of_other_senders() {
        for (field, value, subject) in [
            ("jobUid", serde_json::json!("other"), "job"),
            ("podUid", serde_json::json!("other"), "pod"),
            ("attempt", serde_json::json!(1), "attempt"),
        ] {
            let error = serve_and_read(ok(&report(|json| json[field] = value))).await.unwrap_err();
            assert!(error.outcome() == "mismatch" && error.to_string().contains(subject), "{error}");
        }
    }

    #[tokio::test]
    async fn rejects_inconsistent_reports_and_other_responses() {
        let succeeded = report(|json| json["phase"] = "Succeeded".into());
        assert_eq!(serve_and_read(ok(&succeeded)).await.unwrap_err().outcome(), "malformed");
        let failed = report(|json| json["phase"] = "Failed".into());
        assert_eq!(serve_and_read(ok(&failed)).await.unwrap_err().outcome(), "malformed");
        assert_eq!(serve_and_read(ok(b"<html>")).await.unwrap_err().outcome(), "malformed");
        let redirect =
            b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(serve_and_read(redirect.to_vec()).await.unwrap_err().outcome(), "status");
    }

    #[tokio::test]
    async fn rejects_integers_that_a_status_cannot_hold() {
        let large = report(|json| json["progress"] = serde_json::json!({"step": u64::MAX}));
        let error = serve_and_read(ok(&large)).await.unwrap_err();
        assert!(error.to_string().contains(".progress.step exceeds"), "{error}");
    }

    #[tokio::test]
    async fn rejects_oversized_responses() {
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b' '; 1 << 20]].concat();
        assert_eq!(serve_and_read(endless).await.unwrap_err().outcome(), "too_large");
    }

    #[tokio::test]
    async fn a_closed_port_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error = ReportReader::new().unwrap().read_at(address, EXPECTED).await.unwrap_err();
        assert!(error.outcome() == "unreachable" && error.to_string().contains("refused"), "{error}");
    }
}
