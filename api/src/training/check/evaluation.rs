//! What `evaluation` must satisfy.

use super::{InvalidTraining, count, number, refuse, size};
use crate::training::{DuringAttack, FinalAttack, Training};

impl Training {
    pub(super) fn check_evaluation(&self) -> Result<(), InvalidTraining> {
        count("evaluation.everyEpochs", self.evaluation.every_epochs, 1, 10_000)?;
        let DuringAttack::Pgd(during) = &self.evaluation.during;
        count("evaluation.during.pgd.steps", during.steps, 1, 1000)?;
        size("evaluation.during.pgd.stepSize", during.step_size.as_ref(), self.largest_epsilon())?;
        if !(1..=16).contains(&self.evaluation.final_.len()) {
            return refuse("evaluation.final", "must have 1 to 16 attacks");
        }
        self.evaluation.final_.iter().try_for_each(|attack| self.check_final_attack(attack))?;
        let names: Vec<String> = self.evaluation.final_.iter().map(FinalAttack::name).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            let problem = format!(
                "duplicate attack {name:?}; results and evaluation.target identify an attack by its name, so remove one"
            );
            return refuse("evaluation.final", &problem);
        }
        self.check_sweep()?;
        self.check_certify()?;
        self.check_target()
    }

    fn check_sweep(&self) -> Result<(), InvalidTraining> {
        let Some(sweep) = &self.evaluation.sweep else { return Ok(()) };
        if sweep.epsilon.len() > 16 || sweep.steps.len() > 16 {
            return refuse(
                "evaluation.sweep",
                "must have at most 16 values of epsilon and at most 16 of steps",
            );
        }
        let most = self.largest_epsilon();
        sweep.steps.iter().try_for_each(|&steps| count("evaluation.sweep.steps", steps, 1, 10_000))?;
        sweep.epsilon.iter().try_for_each(|epsilon| size("evaluation.sweep.epsilon", Some(epsilon), most))
    }

    fn check_certify(&self) -> Result<(), InvalidTraining> {
        let Some(certify) = &self.evaluation.certify else { return Ok(()) };
        count("evaluation.certify.images", certify.images, 1, 1_000_000)?;
        count("evaluation.certify.selectionSamples", certify.selection_samples, 1, 1_000_000)?;
        count("evaluation.certify.samples", certify.samples, 1, 100_000_000)?;
        number("evaluation.certify.alpha", certify.alpha, 0.0001, 0.5)?;
        match self.certified_sigma() {
            Some(sigma) => number("evaluation.certify.sigma", sigma, 0.001, 10.0),
            None => refuse(
                "evaluation.certify.sigma",
                "required without smoothing; set the standard deviation of the noise",
            ),
        }
    }

    fn check_target(&self) -> Result<(), InvalidTraining> {
        let Some(target) = &self.evaluation.target else { return Ok(()) };
        number("evaluation.target.accuracy", target.accuracy, 0.0, 100.0)?;
        let names: Vec<String> = self.evaluation.final_.iter().map(FinalAttack::name).collect();
        match &target.attack {
            Some(name) if !names.contains(name) => refuse(
                "evaluation.target.attack",
                &format!(
                    "unknown attack {name:?}; expected one of evaluation.final ({}), or no value for the worst case",
                    names.join(", ")
                ),
            ),
            _ => Ok(()),
        }
    }

    fn check_final_attack(&self, attack: &FinalAttack) -> Result<(), InvalidTraining> {
        let bound = |method: &str, field: &str, value, most| {
            count(&format!("evaluation.final.{method}.{field}"), value, 1, most)
        };
        match attack {
            FinalAttack::Pgd(pgd) | FinalAttack::Cw(pgd) => {
                let method = if matches!(attack, FinalAttack::Pgd(_)) { "pgd" } else { "cw" };
                bound(method, "steps", pgd.steps, 10_000)?;
                bound(method, "restarts", pgd.restarts(), 1000)?;
                let field = format!("evaluation.final.{method}.stepSize");
                size(&field, pgd.step_size.as_ref(), self.largest_epsilon())
            }
            FinalAttack::ApgdCe(apgd) => {
                bound("apgdCe", "steps", apgd.steps(), 10_000)?;
                bound("apgdCe", "restarts", apgd.restarts(), 1000)
            }
            FinalAttack::ApgdT(targeted) | FinalAttack::FabT(targeted) => {
                let method = if matches!(attack, FinalAttack::ApgdT(_)) { "apgdT" } else { "fabT" };
                bound(method, "steps", targeted.steps(), 10_000)?;
                bound(method, "targets", targeted.targets(), 1000)
            }
            FinalAttack::Square(square) => {
                bound("square", "queries", square.queries(), 100_000)?;
                bound("square", "restarts", square.restarts(), 1000)
            }
            FinalAttack::AutoAttack(_) => Ok(()),
        }
    }
}
