//! Counts the requests to the API server by verb and resource.

use std::sync::Arc;

use http::{Method, Request, Uri};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::util::MapRequestLayer;

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
    let metrics = Arc::clone(metrics);
    let count = move |request: Request<Body>| {
        metrics.record_request(verb(request.method(), request.uri()), resource(request.uri().path()));
        request
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&MapRequestLayer::new(count)).build())
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
    use super::*;

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
