//! Counts requests in the API server's audit log.
//!
//! The log contains only the requests of the benchmarked controller, because its service account is alone in its group.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Longest line that is searched for the end of the log.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Numbers of requests by verb and resource, for example "create pods".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Requests by verb and resource.
    pub by_kind: BTreeMap<String, u64>,
    /// Requests that failed, by verb, resource and HTTP status. A missing object also counts.
    pub failed: BTreeMap<String, u64>,
}

impl Calls {
    /// All requests, except those for Leases.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Requests that read or watch, except those for Leases.
    pub fn reads(&self) -> u64 {
        self.total() - self.writes()
    }

    /// Requests that write, except those for Leases.
    pub fn writes(&self) -> u64 {
        self.sum(|verb| matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection"))
    }

    fn sum(&self, includes: impl Fn(&str) -> bool) -> u64 {
        let counted = |kind: &str| {
            let (verb, resource) = kind.split_once(' ').unwrap_or((kind, ""));
            resource != "leases" && includes(verb)
        };
        self.by_kind.iter().filter(|(kind, _)| counted(kind)).map(|(_, count)| count).sum()
    }

    fn add(&mut self, event: &Event) {
        // A watch is counted when it starts. Its end says nothing.
        let counted = match event.stage.as_str() {
            "ResponseStarted" => event.verb == "watch",
            "ResponseComplete" => event.verb != "watch",
            _ => false,
        };
        if !counted {
            return;
        }
        let target = match &event.object_ref {
            Some(object) if object.subresource.is_empty() => object.resource.clone(),
            Some(object) => format!("{}/{}", object.resource, object.subresource),
            None => event.request_uri.split('?').next().unwrap_or_default().to_owned(),
        };
        let kind = format!("{} {target}", event.verb);
        if event.response_status.code >= 400 {
            *self.failed.entry(format!("{kind} {}", event.response_status.code)).or_default() += 1;
        }
        *self.by_kind.entry(kind).or_default() += 1;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    stage: String,
    verb: String,
    #[serde(rename = "requestURI", default)]
    request_uri: String,
    #[serde(default)]
    object_ref: Option<ObjectReference>,
    #[serde(default)]
    response_status: ResponseStatus,
}

#[derive(Deserialize)]
struct ObjectReference {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
}

#[derive(Default, Deserialize)]
struct ResponseStatus {
    #[serde(default)]
    code: u16,
}

/// The audit log, a JSON object per line.
#[derive(Clone, Debug)]
pub struct AuditLog(PathBuf);

/// A position in the log, at the start of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(u64);

impl AuditLog {
    /// The log at a path.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Path of the log.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The current end of the log.
    pub fn position(&self) -> anyhow::Result<Position> {
        let mut file = self.open()?;
        let length = file.metadata().with_context(|| self.cannot_read())?.len();
        let start = length.saturating_sub(MAX_LINE_BYTES);
        let mut end = Vec::new();
        file.seek(SeekFrom::Start(start)).with_context(|| self.cannot_read())?;
        file.take(length - start).read_to_end(&mut end).with_context(|| self.cannot_read())?;
        // The last line may be incomplete.
        let complete = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        Ok(Position(start + complete as u64))
    }

    /// Counts the requests between two positions.
    pub fn count(&self, from: Position, to: Position) -> anyhow::Result<Calls> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(from.0)).with_context(|| self.cannot_read())?;
        let mut calls = Calls::default();
        for line in BufReader::new(file.take(to.0.saturating_sub(from.0))).lines() {
            let line = line.with_context(|| self.cannot_read())?;
            let event = serde_json::from_str(&line)
                .with_context(|| format!("invalid audit event in {}: {line}", self.0.display()))?;
            calls.add(&event);
        }
        Ok(calls)
    }

    fn open(&self) -> anyhow::Result<File> {
        File::open(&self.0).with_context(|| {
            format!(
                "{}; start the cluster with `cluster up --audit-group system:serviceaccounts:datjob-system`",
                self.cannot_read()
            )
        })
    }

    fn cannot_read(&self) -> String {
        format!("cannot read the audit log {}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    const LINES: &str = concat!(
        r#"{"stage":"ResponseComplete","verb":"get","requestURI":"/a","objectRef":{"resource":"pods"},"responseStatus":{"code":404}}"#,
        "\n",
        r#"{"stage":"ResponseComplete","verb":"patch","requestURI":"/a","objectRef":{"resource":"datjobs","subresource":"status"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"stage":"ResponseStarted","verb":"watch","requestURI":"/a","objectRef":{"resource":"datjobs"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"stage":"ResponseComplete","verb":"watch","requestURI":"/a","objectRef":{"resource":"datjobs"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"stage":"ResponseComplete","verb":"update","requestURI":"/a","objectRef":{"resource":"leases"},"responseStatus":{"code":200}}"#,
        "\n",
        r#"{"stage":"ResponseComplete","verb":"get","requestURI":"/apis/x?timeout=1","responseStatus":{"code":200}}"#,
        "\n",
    );

    #[test]
    fn counts_by_verb_and_resource() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        fs::write(&path, LINES).unwrap();
        let log = AuditLog::new(path);
        let calls = log.count(Position(0), log.position().unwrap()).unwrap();
        let kinds: Vec<_> = calls.by_kind.keys().map(String::as_str).collect();
        assert_eq!(
            kinds,
            ["get /apis/x", "get pods", "patch datjobs/status", "update leases", "watch datjobs"]
        );
        assert!(calls.by_kind.values().all(|count| *count == 1));
        assert_eq!(calls.failed, [("get pods 404".to_owned(), 1)].into());
        assert_eq!((calls.total(), calls.writes()), (4, 1));
    }

    #[test]
    fn a_position_excludes_an_incomplete_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        fs::write(&path, &LINES[..LINES.len() - 10]).unwrap();
        let log = AuditLog::new(path.clone());
        let position = log.position().unwrap();
        assert_eq!(log.count(Position(0), position).unwrap().total(), 3);
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&LINES.as_bytes()[LINES.len() - 10..])
            .unwrap();
        assert_eq!(log.count(position, log.position().unwrap()).unwrap().total(), 1);
    }

    #[test]
    fn a_missing_log_names_the_option() {
        let error = AuditLog::new("/does/not/exist".into()).position().unwrap_err();
        assert!(error.to_string().contains("--audit-group"), "{error}");
    }
}
