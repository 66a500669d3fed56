//! Validation of the training spec: bounds of the schema, and rules that a schema cannot express. Pure.

use super::{Attack, Epsilon, Norm, Training, rules::Rule};

mod bounds;
mod data;
mod evaluation;
mod files;

/// An invalid training spec: the field and what to write there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("spec.training.{field}: {problem}")]
pub struct InvalidTraining {
    /// Path of the field below `spec.training`.
    pub field: String,
    /// What is wrong with it and what to write.
    pub problem: String,
}

/// Checks rules; the first violation is the error. `prefix` is the path of the value below `spec.training`.
fn check_rules<T>(rules: &[Rule<T>], value: &T, prefix: &str) -> Result<(), InvalidTraining> {
    Rule::violated(rules, value).map_or(Ok(()), |rule| {
        Err(InvalidTraining { field: format!("{prefix}{}", rule.field), problem: rule.problem.to_owned() })
    })
}

/// Pods of a world, and workers and GPUs in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Number of pods.
    pub pods: u32,
    /// Workers in each pod; each is one rank.
    pub workers: u32,
    /// GPUs in each pod; 0 for training on the CPU.
    pub gpus: u32,
}

impl Topology {
    /// Number of ranks.
    pub fn world_size(self) -> u32 {
        self.pods * self.workers
    }
}

impl Training {
    /// Checks the bounds of the schema, combinations of fields and the world size.
    pub fn check(&self, topology: Topology) -> Result<(), InvalidTraining> {
        self.check_bounds()?;
        check_rules(&super::combinations::RULES, self, "")?;
        check_rules(&super::model::RULES, &self.model, "model.")?;
        check_rules(&super::data::RULES, &self.data, "data.")?;
        check_rules(&super::data::AUGMENTATION_RULES, &self.data.augmentation, "data.augmentation.")?;
        check_rules(&super::schedule::RULES, &self.schedule, "schedule.")?;
        check_rules(&super::evaluation::RULES, &self.evaluation, "evaluation.")?;
        self.check_source()?;
        self.check_files()?;
        self.check_epsilons()?;
        self.check_evaluation()?;
        self.check_backend(topology)?;
        self.check_world(topology.world_size())?;
        // The trainer checks what depends on the user's files.
        let contents = self.data.dataset.contents();
        contents.map_or(Ok(()), |contents| self.check_contents(&contents, topology.world_size()))
    }

    fn check_backend(&self, Topology { workers, gpus, .. }: Topology) -> Result<(), InvalidTraining> {
        if self.communication.backend.uses_nccl(workers, gpus).is_some() {
            return Ok(());
        }
        let problem = match gpus {
            0 => "NCCL requires one GPU per rank, and the pods request no GPUs; request nvidia.com/gpu in \
                  spec.pod.resources.limits (--gpus on a workstation), or use Auto"
                .to_owned(),
            _ => format!(
                "NCCL requires one GPU per rank, and the workers per pod ({workers}) exceed the GPUs per pod ({gpus}); \
                 use Gloo or Auto, or set the workers per pod to {gpus}"
            ),
        };
        refuse("communication.backend", &problem)
    }

    fn check_epsilons(&self) -> Result<(), InvalidTraining> {
        let max = self.max_epsilon();
        let check = |field: &str, epsilon: Option<&Epsilon>| check_size(field, epsilon, max);
        check("threatModel.epsilon", Some(&self.threat_model.epsilon))?;
        match &self.attack.method {
            Attack::Pgd(pgd) => check("attack.pgd.stepSize", pgd.step_size.as_ref()),
            Attack::Fgsm(fgsm) => check("attack.fgsm.stepSize", fgsm.step_size.as_ref()),
            Attack::NFgsm(n_fgsm) => check("attack.nFgsm.stepSize", n_fgsm.step_size.as_ref()),
        }
    }

    fn max_epsilon(&self) -> f64 {
        match self.threat_model.norm {
            Norm::Linf => 1.0,
            Norm::L2 => 100.0,
        }
    }

    fn check_world(&self, world_size: u32) -> Result<(), InvalidTraining> {
        let batch = self.schedule.batch_size;
        if batch < world_size {
            return refuse(
                "schedule.batchSize",
                &format!(
                    "invalid value {batch}: must be at least the world size ({world_size}), because each rank needs an \
                     image in every step"
                ),
            );
        }
        Ok(())
    }
}

fn refuse(field: &str, problem: &str) -> Result<(), InvalidTraining> {
    Err(InvalidTraining { field: field.to_owned(), problem: problem.to_owned() })
}

/// Checks that a value is at most another value, which `limit` names.
fn check_at_most(field: &str, value: u32, max: u32, limit: &str) -> Result<(), InvalidTraining> {
    if value <= max {
        return Ok(());
    }
    refuse(field, &format!("invalid value {value}: must be at most {max} ({limit})"))
}

fn check_size(field: &str, epsilon: Option<&Epsilon>, max: f64) -> Result<(), InvalidTraining> {
    match epsilon {
        Some(size) if !(size.value() > 0.0 && size.value() <= max) => refuse(
            field,
            &format!(
                "invalid value {size}: must be greater than 0 and at most {max}, in units of the pixel range [0, 1]; \
                 for example \"8/255\""
            ),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
