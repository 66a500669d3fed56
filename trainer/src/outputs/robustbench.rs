//! `model_card.json`: the fields of RobustBench's model descriptions (`model_info/` in its repository). Fields that a training
//! does not know are null. Pure.

use datjob_api::training::{Architecture, Norm};
use serde::Serialize;

use crate::checkpoint::results::Document;

/// The file's name.
pub const FILE: &str = "model_card.json";

/// A RobustBench model description. Accuracies are strings in percent.
#[derive(Debug, Serialize)]
struct ModelInfo {
    /// Link to the paper.
    link: Option<String>,
    /// Title of the paper.
    name: Option<String>,
    /// Authors of the paper.
    authors: Option<String>,
    /// Whether training used images that are not in the data set.
    additional_data: Option<bool>,
    /// Number of forward passes per prediction.
    number_forward_passes: u32,
    dataset: &'static str,
    venue: Option<String>,
    architecture: String,
    eps: String,
    clean_acc: String,
    /// Robust accuracy reported by the authors of the model.
    reported: String,
    /// Robust accuracy under AutoAttack.
    autoattack_acc: Option<String>,
    footnote: String,
}

/// The model description of a finished training.
pub fn json(document: &Document) -> String {
    let json = serde_json::to_string_pretty(&model_info(document));
    json.unwrap_or_else(|error| unreachable!("plain data serializes: {error}"))
}

fn model_info(Document { results, training, .. }: &Document) -> ModelInfo {
    let auto_attack = results.attacks.iter().find(|attack| attack.attack == "autoattack");
    let names: Vec<&str> = results.attacks.iter().map(|attack| attack.attack.as_str()).collect();
    let norm = match training.threat_model.norm {
        Norm::Linf => "Linf",
        Norm::L2 => "L2",
    };
    let mut footnote = format!(
        "Threat model {norm}. Trained and evaluated by DatJob {} on the whole test set. Reported: worst case of {}.",
        results.trainer_version,
        names.join(" and ")
    );
    for warning in results.attacks.iter().flat_map(|attack| &attack.warnings) {
        footnote.push(' ');
        footnote.push_str(warning);
    }
    ModelInfo {
        link: None,
        name: None,
        authors: None,
        // The images that initial weights were trained on are unknown.
        additional_data: match (&training.data.additional, &training.model.initial_weights) {
            (Some(_), _) => Some(true),
            (None, Some(_)) => None,
            (None, None) => Some(false),
        },
        number_forward_passes: 1,
        dataset: training.data.dataset.name(),
        venue: None,
        architecture: robustbench_name(training.model.architecture),
        eps: training.threat_model.epsilon.to_string(),
        clean_acc: results.clean.percent(),
        reported: results.worst_case.percent(),
        autoattack_acc: auto_attack.map(|attack| attack.count().percent()),
        footnote,
    }
}

/// RobustBench's name of an architecture. An architecture that RobustBench does not have keeps its name.
fn robustbench_name(architecture: Architecture) -> String {
    let name = architecture.to_string();
    match name.as_str() {
        "resnet18" => "ResNet-18".to_owned(),
        "resnet34" => "ResNet-34".to_owned(),
        "resnet50" => "ResNet-50".to_owned(),
        "preact-resnet18" => "PreActResNet-18".to_owned(),
        other => match other.strip_prefix("wide-resnet-") {
            Some(depth_and_width) => format!("WideResNet-{depth_and_width}"),
            None => name,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::outputs::example::document;

    #[test]
    fn has_the_fields_of_robustbench() {
        let card: Value = serde_json::from_str(&json(&document())).unwrap();
        let footnote = card["footnote"].as_str().unwrap();
        assert!(footnote.contains("Linf") && footnote.contains("autoattack and pgd-20"), "{footnote}");
        assert!(footnote.ends_with("The network may hide its gradients <b>."), "{footnote}");
        let expected = json!({
            "link": null, "name": null, "authors": null, "additional_data": false, "number_forward_passes": 1,
            "dataset": "cifar10", "venue": null, "architecture": "WideResNet-28-10", "eps": "8/255",
            "clean_acc": "80.00", "reported": "39.00", "autoattack_acc": "40.00", "footnote": footnote
        });
        assert_eq!(card, expected);
    }

    #[test]
    fn accuracies_that_were_not_measured_are_null() {
        let mut document = document();
        document.results.attacks.remove(0);
        let card: Value = serde_json::from_str(&json(&document)).unwrap();
        assert_eq!(card["autoattack_acc"], Value::Null);
    }

    #[test]
    fn images_of_initial_weights_are_unknown() {
        let with = |part: &str, value: Value| {
            let mut document = document();
            let mut training = serde_json::to_value(&document.training).unwrap();
            *training.pointer_mut(part).unwrap() = value;
            document.training = serde_json::from_value(training).unwrap();
            serde_json::from_str::<Value>(&super::json(&document)).unwrap()["additional_data"].clone()
        };
        let source = json!({"volume": {"persistentVolumeClaim": {"claimName": "images"}}});
        let weights =
            json!({"volume": {"persistentVolumeClaim": {"claimName": "weights"}, "path": "w.safetensors"}});
        let fine_tuned = json!({"architecture": "resnet18", "initialWeights": {"source": weights}});
        assert_eq!(with("/model", fine_tuned), Value::Null);
        let additional = json!({
            "dataset": "cifar10", "source": source, "additional": {"source": weights}
        });
        assert_eq!(with("/data", additional), true);
    }
}
