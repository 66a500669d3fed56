//! Validation of `evaluation`. Pure.

use super::{InvalidTraining, check_size, refuse};
use crate::training::{DuringAttack, FinalAttack, Training};

impl Training {
    pub(super) fn check_evaluation(&self) -> Result<(), InvalidTraining> {
        let DuringAttack::Pgd(during) = &self.evaluation.during;
        check_size("evaluation.during.pgd.stepSize", during.step_size.as_ref(), self.max_epsilon())?;
        self.check_step_sizes()?;
        let names: Vec<String> = self.evaluation.final_.iter().map(FinalAttack::name).collect();
        if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            let problem = format!(
                "duplicate attack {name:?}; results and evaluation.target identify an attack by its name, so remove one"
            );
            return refuse("evaluation.final", &problem);
        }
        self.check_sweep()
    }

    fn check_sweep(&self) -> Result<(), InvalidTraining> {
        let radii = self.evaluation.sweep.iter().flat_map(|sweep| &sweep.epsilon).enumerate();
        radii.into_iter().try_for_each(|(index, epsilon)| {
            check_size(&format!("evaluation.sweep.epsilon[{index}]"), Some(epsilon), self.max_epsilon())
        })
    }

    fn check_step_sizes(&self) -> Result<(), InvalidTraining> {
        self.evaluation.final_.iter().enumerate().try_for_each(|(index, attack)| {
            let (method, pgd) = match attack {
                FinalAttack::Pgd(pgd) => ("pgd", pgd),
                FinalAttack::Cw(pgd) => ("cw", pgd),
                FinalAttack::ApgdCe(_)
                | FinalAttack::ApgdT(_)
                | FinalAttack::FabT(_)
                | FinalAttack::Square(_)
                | FinalAttack::AutoAttack(_) => return Ok(()),
            };
            let field = format!("evaluation.final[{index}].{method}.stepSize");
            check_size(&field, pgd.step_size.as_ref(), self.max_epsilon())
        })
    }
}
