//! Warnings about settings that are valid but have no effect. Pure.

use super::{Decay, Training};

impl Training {
    /// Settings without effect, a sentence each, without a full stop.
    pub fn warnings(&self) -> Vec<String> {
        let epochs = self.schedule.epochs;
        let Decay::Piecewise(piecewise) = self.schedule.decay() else { return Vec::new() };
        let late: Vec<String> =
            piecewise.at.iter().filter(|&&at| at >= epochs).map(ToString::to_string).collect();
        if late.is_empty() {
            return Vec::new();
        }
        vec![format!(
            "spec.training.schedule.decay.piecewise.at: no effect after the last epoch ({epochs}): {}; remove these numbers \
             or raise schedule.epochs",
            late.join(", ")
        )]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn warnings(decay: &Value) -> Vec<String> {
        let training: Training = serde_json::from_value(json!({
            "model": {"architecture": "small-cnn"},
            "data": {"dataset": "mnist", "source": {"image": {"reference": "a"}}},
            "threatModel": {"epsilon": "0.1"},
            "attack": {"fgsm": {}},
            "schedule": {"epochs": 30, "decay": decay}
        }))
        .unwrap();
        training.warnings()
    }

    #[test]
    fn an_epoch_after_the_last_has_no_effect() {
        assert_eq!(warnings(&json!({"piecewise": {"at": [10, 29]}})), Vec::<String>::new());
        assert_eq!(warnings(&json!({"cosine": {}})), Vec::<String>::new());
        let found = warnings(&json!({"piecewise": {"at": [29, 30, 75]}}));
        assert!(
            found[0].starts_with(
                "spec.training.schedule.decay.piecewise.at: no effect after the last epoch (30): 30, 75;"
            ),
            "{found:?}"
        );
    }
}
