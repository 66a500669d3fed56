//! The example completes, and its status, events and columns are correct.

use datjob_e2e::{Namespace, checkout, documents, job, kubectl, registry, wait_until};
use serde_json::Value;

/// Minimum accuracies in percent: the worst of five seeds and three kinds of vector instructions (docs/results.md), less one
/// point.
const MIN_CLEAN: f64 = 81.67;
const MIN_ROBUST: f64 = 69.45;

fn percent(value: &Value) -> f64 {
    value.as_str().expect("percentages are strings").parse().expect("percentages are numbers")
}

#[test]
fn the_example_completes_and_reports_its_accuracies() {
    let namespace = Namespace::new("example");
    for mut document in documents(&format!("{}/examples/fashion-mnist.yaml", checkout())) {
        if document["kind"] == "DatJob" {
            let image = &mut document["spec"]["training"]["data"]["source"]["image"]["reference"];
            *image = image.as_str().expect("a string").replace("localhost/datjob", &registry()).into();
        }
        namespace.apply(&document).expect("the example is accepted");
    }
    namespace
        .kubectl(&["wait", "datjob/fashion-mnist", "--for=condition=Complete", "--timeout=20m"])
        .expect("the example completes");

    // A complete job has its results in the status.
    let object = namespace.get("datjob", "fashion-mnist").expect("the job exists");
    let status = &object["status"];
    let results = &status["results"];
    assert_eq!(results["clean"]["total"], 10_000);
    assert_eq!(results["attacks"][0]["name"], "pgd-20");
    assert!(percent(&results["clean"]["percent"]) >= MIN_CLEAN, "{results}");
    assert!(percent(&results["worstCase"]["percent"]) >= MIN_ROBUST, "{results}");
    assert_eq!(status["clean"], results["clean"]["percent"]);
    assert_eq!(status["robust"], results["worstCase"]["percent"]);
    assert_eq!(status["state"], "Complete");
    assert_eq!(status["restarts"]["total"], 0);
    assert_eq!(status["observedGeneration"], object["metadata"]["generation"]);
    for (kind, expected) in
        [("Ready", "True"), ("Finished", "True"), ("Complete", "True"), ("Failed", "False")]
    {
        assert_eq!(job::condition(&object, kind).expect(kind)["status"], expected, "{kind}: {status}");
    }

    let columns = namespace.kubectl(&["get", "datjobs"]).expect("jobs can be listed");
    assert!(columns.contains("ROBUST") && columns.contains("Complete"), "{columns}");
    let reasons: Vec<String> =
        namespace.events("fashion-mnist").into_iter().map(|(reason, _)| reason).collect();
    for reason in ["Created", "WorldFormed", "Completed"] {
        assert!(reasons.iter().any(|found| found == reason), "no event {reason} in {reasons:?}");
    }
    wait_until("termination of the pods", 120, || match namespace.pods("fashion-mnist").len() {
        0 => Ok(()),
        left => Err(format!("{left} pods remain")),
    });
    assert!(namespace.get("poddisruptionbudget", "fashion-mnist").is_none());
}

#[test]
fn kubectl_explain_documents_fields() {
    let text = kubectl(&["explain", "datjob.spec.training.threatModel.epsilon"], "")
        .expect("the field is explained");
    assert!(text.contains("8/255"), "{text}");
}

#[test]
fn every_example_is_accepted() {
    let namespace = Namespace::new("examples");
    for entry in std::fs::read_dir(format!("{}/examples", checkout())).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let path = path.to_str().expect("a path");
        namespace
            .kubectl(&["apply", "--dry-run=server", "-f", path])
            .unwrap_or_else(|refusal| panic!("{path}: {refusal}"));
        let lines = std::fs::read_to_string(path).expect("a text").lines().count();
        assert!(lines < 60, "{path} has {lines} lines");
    }
}
