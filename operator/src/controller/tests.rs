//! Reconciliations of one job, with the requests that they make.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use http::{Method, Request, Response};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::{
    client::Body,
    runtime::{
        events::{Recorder, Reporter},
        watcher::Event,
    },
};
use serde_json::{Value, json};

use super::{
    watch::{Entry, Pod},
    *,
};
use crate::{reports::ReportReader, testing::minimal};

const OWN: &str = "datjob-system/datjob-operator";
const CLAIM: &str = "PATCH /apis/datjob.io/v1alpha1/namespaces/team/datjobs/fashion/status";

/// The requests of the operator; all are answered by one function.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    fn context(&self, answer: fn(&Method) -> (u16, Value)) -> Context {
        let requests = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri().path());
            requests.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            let (status, body) = answer(request.method());
            let body = Body::from(serde_json::to_vec(&body).unwrap());
            async move { Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap()) }
        });
        let client = Client::new(service, "team");
        let metrics = Arc::new(Metrics::default());
        let recorder =
            Recorder::new(client.clone(), Reporter { controller: "operator".to_owned(), instance: None });
        Context {
            client,
            installation: Installation::new(Some("datjob-system"), "datjob-operator"),
            others: OtherInstallations::default(),
            settings: Settings {
                trainer_image: "trainer".to_owned(),
                trainer_cuda_image: None,
                operator_namespace: None,
            },
            children: ChildStore::default(),
            reports: ReportPoller::new(ReportReader::new().unwrap()),
            triggers: Triggers::default(),
            events: EventPublisher::start(recorder, Arc::clone(&metrics), || true),
            cache: JobCache::default(),
            event_lists: EventLists::default(),
            metrics,
        }
    }

    fn made(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn job(assigned: Option<&str>, status: Value) -> DatJob {
    let mut job = minimal();
    job.metadata.resource_version = Some("7".to_owned());
    job.spec.managed_by = assigned.map(str::to_owned);
    job.status = serde_json::from_value(status).unwrap();
    job
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}))
}

#[tokio::test]
async fn a_job_of_another_installation_costs_no_requests() {
    for job in [
        job(None, json!({"managedBy": "team/other"})),
        job(Some("example.com/queue"), json!({"observedGeneration": -1})),
        job(Some("team/other"), json!({"managedBy": OWN, "attempt": 1})),
    ] {
        let requests = Requests::default();
        let context = requests.context(|_| failure(500, "InternalError"));
        for _ in 0..2 {
            assert_eq!(reconcile(&job, &context).await.unwrap(), Action::await_change());
        }
        assert_eq!(requests.made(), [""; 0]);
    }
}

#[tokio::test]
async fn nothing_is_created_for_a_job_that_another_installation_claims_first() {
    for (assigned, recorded) in [(None, ""), (Some(OWN), ""), (Some(OWN), "team/other")] {
        let requests = Requests::default();
        let context = requests.context(|_| failure(409, "Conflict"));
        let result = reconcile(&job(assigned, json!({"managedBy": recorded})), &context).await;
        assert!(matches!(result, Err(ReconcileError::Apply(ApplyError::Stale))), "{result:?}");
        assert_eq!(requests.made(), [CLAIM]);
    }
}

#[tokio::test]
async fn a_job_is_claimed_before_its_first_child_is_created() {
    let requests = Requests::default();
    let context = requests.context(|method| match *method {
        Method::PATCH => {
            (200, serde_json::to_value(job(None, json!({"managedBy": OWN, "state": "Pending"}))).unwrap())
        }
        _ => failure(403, "Forbidden"),
    });
    reconcile(&job(None, json!({})), &context).await.unwrap();
    let made = requests.made();
    assert_eq!(
        made[..2],
        [CLAIM.to_owned(), "POST /api/v1/namespaces/team/configmaps".to_owned()],
        "{made:?}"
    );
}

#[tokio::test]
async fn a_consistent_finished_job_without_children_costs_no_requests() {
    let condition = |kind: &str, value: &str| {
        json!({"type": kind, "status": value, "reason": "Complete", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let all: Vec<Value> = [
        ("Ready", "True"),
        ("Reconciling", "False"),
        ("Stalled", "False"),
        ("Finished", "True"),
        ("Complete", "True"),
        ("Failed", "False"),
    ]
    .map(|(kind, value)| condition(kind, value))
    .into();
    let status = json!({"observedGeneration": 1, "state": "Complete", "conditions": all});
    let requests = Requests::default();
    let context = requests.context(|_| failure(500, "InternalError"));
    reconcile(&job(None, status), &context).await.unwrap();
    assert_eq!(requests.made(), [""; 0]);
}

#[tokio::test]
async fn the_events_of_a_stuck_pod_are_listed_once() {
    let requests = Requests::default();
    let context = requests.context(|_| {
        let event = json!({"metadata": {}, "involvedObject": {}, "reason": "FailedMount", "message": "no secret",
            "lastTimestamp": Timestamp::now()});
        (200, json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": [event]}))
    });
    let job = job(None, json!({"managedBy": OWN, "attempt": 1}));
    let identity = Identity::of(&job).unwrap();
    let set: StatefulSet = serde_json::from_value(json!({
        "metadata": {"uid": "set", "annotations": {"datjob.io/attempt": "1"}, "ownerReferences": [identity.owner()]},
        "spec": {"replicas": 1, "selector": {}, "template": {}}
    }))
    .unwrap();
    let set = watch::objects::stateful_set(&set);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "fashion-0", "uid": "pod", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "fashion", "uid": "set", "controller": true}]},
        "status": {"phase": "Pending", "startTime": Timestamp::now() - Duration::from_mins(1), "containerStatuses": [
            {"name": "trainer", "image": "", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"waiting": {"reason": "ContainerCreating"}}}]}
    }))
    .unwrap();
    let entry = |name: &str| (identity.clone(), name.to_owned());
    let (owner, name) = entry("fashion");
    context.children.stateful_sets.apply(Event::Apply(Entry { job: owner, name, object: set }));
    let (owner, name) = entry("fashion-0");
    context.children.pods.apply(Event::Apply(Entry { job: owner, name, object: pod }));
    for _ in 0..3 {
        let warning = observe::observe(&context, &job, &identity, false).await.unwrap().warning.unwrap();
        assert_eq!((warning.object.as_str(), warning.message.as_str()), ("fashion-0", "no secret"));
    }
    assert_eq!(requests.made(), ["GET /api/v1/namespaces/team/events"]);
}

/// A late watch: the StatefulSet of the attempt exists. Its pods have its token, so it must stay as it is.
#[tokio::test]
async fn the_token_of_an_attempt_never_changes() {
    let requests = Requests::default();
    let context = requests.context(|method| match *method {
        Method::PATCH => {
            (200, serde_json::to_value(job(None, json!({"managedBy": OWN, "state": "Pending"}))).unwrap())
        }
        Method::POST => failure(409, "AlreadyExists"),
        _ => {
            let identity = Identity::of(&minimal()).unwrap();
            let metadata = json!({"name": "fashion", "namespace": "team", "uid": "child", "resourceVersion": "1",
                "annotations": {"datjob.io/attempt": "1"}, "ownerReferences": [identity.owner()]});
            (200, json!({"metadata": metadata, "spec": {"replicas": 1, "selector": {}, "template": {}}}))
        }
    });
    reconcile(&job(None, json!({})), &context).await.unwrap();
    let made = requests.made();
    let sets: Vec<_> = made.iter().filter(|request| request.contains("/statefulsets")).collect();
    let path = "/apis/apps/v1/namespaces/team/statefulsets";
    assert_eq!(sets, [&format!("POST {path}"), &format!("GET {path}/fashion")], "{made:?}");
}
