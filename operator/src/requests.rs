//! Counts the requests to the API server by verb and resource, and those that failed.

use std::sync::Arc;

use http::{Method, Request, Response, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::util::{MapFutureLayer, MapRequestLayer};

use crate::metrics::Metrics;

/// The resources that the operator uses. Others are counted as `other`, so that the label stays bounded.
const RESOURCES: [&str; 11] = [
    "configmaps",
    "datjobs",
    "datjobs/status",
    "events",
    "leases",
    "networkpolicies",
    "poddisruptionbudgets",
    "pods",
    "services",
    "statefulsets",
    "statefulsets/scale",
];

/// Creates a client whose requests are counted in `metrics`.
pub fn counting_client(config: Config, metrics: &Arc<Metrics>) -> kube::Result<Client> {
    let (requested, answered) = (Arc::clone(metrics), Arc::clone(metrics));
    let count = move |request: Request<Body>| {
        requested.record_request(verb(request.method(), request.uri()), resource(request.uri().path()));
        request
    };
    let count_errors = move |response| count_error(Arc::clone(&answered), response);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&MapFutureLayer::new(count_errors))
        .with_layer(&MapRequestLayer::new(count))
        .build())
}

/// Waits for a response. Counts an error also if it is dropped before, as a call does after its timeout.
async fn count_error<B, E>(
    metrics: Arc<Metrics>,
    response: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let mut error = CountedError { metrics, code: Some(NO_RESPONSE) };
    let result = response.await;
    error.code = result.as_ref().map_or(Some(NO_RESPONSE), |response| error_code(response.status().as_u16()));
    result
}

/// Counts its error when it is dropped.
struct CountedError {
    metrics: Arc<Metrics>,
    code: Option<&'static str>,
}

impl Drop for CountedError {
    fn drop(&mut self) {
        if let Some(code) = self.code {
            self.metrics.record_request_error(code);
        }
    }
}

/// Value of the label `code` for a request without a response.
const NO_RESPONSE: &str = "none";

/// Value of the label `code` for an error. Missing objects, conflicts and expired watches are ordinary.
fn error_code(status: u16) -> Option<&'static str> {
    match status {
        404 | 409 | 410 => None,
        401 => Some("401"),
        403 => Some("403"),
        422 => Some("422"),
        429 => Some("429"),
        400..=499 => Some("4xx"),
        500.. => Some("5xx"),
        _ => None,
    }
}

/// The verb of a request, as RBAC names it.
fn verb(method: &Method, uri: &Uri) -> &'static str {
    let query = uri.query().unwrap_or_default();
    let is_collection = segments(uri.path()).len() == 1;
    match *method {
        Method::GET if query.split('&').any(|part| part == "watch=true" || part == "watch=1") => "watch",
        Method::GET if is_collection => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// The resource of a request, with its subresource.
fn resource(path: &str) -> &'static str {
    let name = match segments(path)[..] {
        [resource, _, subresource] => format!("{resource}/{subresource}"),
        [resource, ..] => resource.to_owned(),
        [] => String::new(),
    };
    RESOURCES.into_iter().find(|known| *known == name).unwrap_or("other")
}

/// The resource, the name and the subresource of a path.
fn segments(path: &str) -> Vec<&str> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let rest = match parts[..] {
        ["api", _, ..] => &parts[2..],
        ["apis", _, _, ..] => &parts[3..],
        _ => &parts[..0],
    };
    match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.to_vec(),
        rest => rest.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn errors(response: impl Future<Output = Result<Response<()>, ()>>) -> String {
        let metrics = Arc::new(Metrics::default());
        // A response that never comes is dropped.
        let _ = tokio::time::timeout(Duration::ZERO, count_error(Arc::clone(&metrics), response)).await;
        let text = metrics.encode();
        let lines = text.lines().filter(|line| line.starts_with("datjob_operator_api_errors_total{"));
        lines.collect::<Vec<_>>().join(" ")
    }

    #[tokio::test]
    async fn counts_failed_requests_by_code() {
        let status = |code: u16| async move { Ok(Response::builder().status(code).body(()).unwrap()) };
        let counted = |code: &str| format!("datjob_operator_api_errors_total{{code=\"{code}\"}} 1");
        for ordinary in [200, 201, 304, 404, 409, 410] {
            assert_eq!(errors(status(ordinary)).await, "", "{ordinary}");
        }
        for (code, label) in
            [(403, "403"), (405, "4xx"), (422, "422"), (429, "429"), (500, "5xx"), (503, "5xx")]
        {
            assert_eq!(errors(status(code)).await, counted(label));
        }
        assert_eq!(errors(std::future::ready(Err(()))).await, counted("none"));
        assert_eq!(errors(std::future::pending()).await, counted("none"));
    }

    #[test]
    fn classifies_requests() {
        for (method, uri, expected) in [
            (Method::GET, "/apis/datjob.io/v1alpha1/datjobs?limit=500", ("list", "datjobs")),
            (Method::GET, "/api/v1/pods?labelSelector=a&watch=true", ("watch", "pods")),
            (Method::GET, "/apis/apps/v1/namespaces/a/statefulsets/b", ("get", "statefulsets")),
            (Method::POST, "/api/v1/namespaces/a/services?fieldManager=x", ("create", "services")),
            (
                Method::PATCH,
                "/apis/datjob.io/v1alpha1/namespaces/a/datjobs/b/status",
                ("patch", "datjobs/status"),
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/statefulsets/b/scale",
                ("patch", "statefulsets/scale"),
            ),
            (Method::GET, "/api/v1/namespaces/a", ("get", "other")),
            (Method::GET, "/version", ("get", "other")),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!((verb(&method, &uri), resource(uri.path())), expected, "{uri}");
        }
    }
}
