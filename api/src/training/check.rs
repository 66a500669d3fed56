//! What a training spec must satisfy, for manifests that never met an API server and for what no schema can say.

use super::{Attack, Averaging, Compression, Decay, Epsilon, Norm, Objective, Optimizer, Training};

mod data;
mod evaluation;
mod files;

/// A training spec that cannot be run: the field and what to write there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("spec.training.{field}: {problem}")]
pub struct InvalidTraining {
    /// Path of the field below `spec.training`.
    pub field: String,
    /// What is wrong with it and what to write.
    pub problem: String,
}

/// The pods of a world, and what is in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Pods.
    pub pods: u32,
    /// Workers in each pod: a rank each.
    pub workers: u32,
    /// GPUs in each pod; 0 for training on the CPU.
    pub gpus: u32,
}

impl Topology {
    /// Ranks in all.
    pub fn world_size(self) -> u32 {
        self.pods * self.workers
    }
}

impl Training {
    /// Checks every bound that the schema states, and that the spec fits the world.
    pub fn check(&self, topology: Topology) -> Result<(), InvalidTraining> {
        self.check_bounds()?;
        self.check_data()?;
        self.check_epsilons()?;
        self.check_evaluation()?;
        self.check_model()?;
        self.check_attack()?;
        self.check_backend(topology)?;
        self.check_exchange()?;
        self.check_files()?;
        self.check_additional()?;
        self.check_world(topology.world_size())?;
        // What only the files can tell is checked by the trainer.
        let contents = self.data.dataset.contents();
        contents.map_or(Ok(()), |contents| self.check_contents(&contents, topology.world_size()))
    }

    fn check_model(&self) -> Result<(), InvalidTraining> {
        if self.model.stem_fits() {
            return Ok(());
        }
        let architecture = self.model.architecture;
        refuse(
            "model.stem",
            &format!(
                "{architecture} supports only the default stem; remove the field, or use resnet18, resnet34 or resnet50"
            ),
        )
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

    /// What ranks send one another, and when.
    fn check_exchange(&self) -> Result<(), InvalidTraining> {
        if let Some(Compression::Int8(int8)) = &self.communication.compression {
            count("communication.compression.int8.bucket", int8.bucket, 16, 65536)?;
            count("communication.compression.int8.sides", int8.sides, 1, 2)?;
        }
        let local_steps = self.schedule.local_steps();
        count("schedule.localSteps", local_steps, 1, 1000)?;
        if local_steps == 1 {
            return Ok(());
        }
        if self.communication.compression.is_some() {
            return refuse(
                "communication.compression",
                "cannot be combined with schedule.localSteps, which averages weights instead of gradients; remove one of \
                 the two",
            );
        }
        if self.attack.overlap {
            return refuse(
                "attack.overlap",
                "cannot be combined with schedule.localSteps, which averages weights instead of gradients; remove one of \
                 the two",
            );
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), InvalidTraining> {
        let schedule = &self.schedule;
        self.check_optimizer()?;
        match &self.objective {
            Objective::CrossEntropy(loss) => {
                number("objective.crossEntropy.cleanWeight", loss.clean_weight, 0.0, 100.0)?;
                number("objective.crossEntropy.labelSmoothing", loss.label_smoothing, 0.0, 0.9)?;
            }
            Objective::Trades(loss) => number("objective.trades.beta", loss.beta, 0.0, 1000.0)?,
            Objective::Mart(loss) => number("objective.mart.beta", loss.beta, 0.0, 1000.0)?,
        }
        if let Some(perturbation) = &self.weight_perturbation {
            number("weightPerturbation.gamma", perturbation.gamma(&self.objective), 0.0, 1.0)?;
        }
        if let Some(smoothing) = &self.smoothing {
            number("smoothing.sigma", smoothing.sigma, 0.001, 10.0)?;
            count("smoothing.samples", smoothing.samples(), 1, 64)?;
        }
        if let Some(Averaging::Ema(ema)) = &self.averaging {
            number("averaging.ema.decay", ema.decay, 0.0, 0.999_999)?;
        }
        count("schedule.epochs", schedule.epochs, 1, 100_000)?;
        count("schedule.batchSize", schedule.batch_size, 1, 1_000_000)?;
        count("schedule.warmupEpochs", schedule.warmup_epochs, 0, schedule.epochs)?;
        match schedule.decay() {
            Decay::Cyclic(cyclic) => {
                number("schedule.decay.cyclic.peak", cyclic.peak, 0.0, 1.0)?;
                if schedule.warmup_epochs > 0 {
                    return refuse(
                        "schedule.warmupEpochs",
                        "requires decay.piecewise or decay.cosine; decay.cyclic has no separate warm-up",
                    );
                }
            }
            Decay::Cosine(cosine) => number("schedule.decay.cosine.floor", cosine.floor, 0.0, 1.0)?,
            Decay::Piecewise(piecewise) => {
                number("schedule.decay.piecewise.factor", piecewise.factor, 0.0, 1.0)?;
                for &epoch in &piecewise.at {
                    count("schedule.decay.piecewise.at", epoch, 1, 100_000)?;
                }
            }
        }
        if let Some(scaling) = schedule.scaling {
            count("schedule.scaling.baseBatchSize", scaling.base_batch_size, 1, 1_000_000)?;
        }
        count("checkpoint.everyEpochs", self.checkpoint.every_epochs, 1, 10_000)?;
        count("checkpoint.keep.last", self.checkpoint.keep.last, 1, 1000)?;
        match &self.attack.method {
            Attack::Pgd(pgd) => count("attack.pgd.steps", pgd.steps, 1, 1000)?,
            Attack::NFgsm(n_fgsm) => number("attack.nFgsm.noise", n_fgsm.noise, 0.0, 10.0)?,
            Attack::Fgsm(_) => {}
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<(), InvalidTraining> {
        let moments = |name: &str, beta1, beta2, epsilon, weight_decay| {
            number(&format!("optimizer.{name}.beta1"), beta1, 0.0, 0.999_999)?;
            number(&format!("optimizer.{name}.beta2"), beta2, 0.0, 0.999_999)?;
            number(&format!("optimizer.{name}.epsilon"), epsilon, 0.0, 1.0)?;
            number(&format!("optimizer.{name}.weightDecay"), weight_decay, 0.0, 100.0)
        };
        let name = match &self.optimizer {
            Optimizer::Sgd(sgd) => {
                number("optimizer.sgd.momentum", sgd.momentum, 0.0, 0.9999)?;
                number("optimizer.sgd.weightDecay", sgd.weight_decay, 0.0, 1.0)?;
                "sgd"
            }
            Optimizer::AdamW(adam) => {
                moments("adamW", adam.beta1, adam.beta2, adam.epsilon(), adam.weight_decay)?;
                "adamW"
            }
            Optimizer::Lamb(lamb) => {
                moments("lamb", lamb.beta1, lamb.beta2, lamb.epsilon(), lamb.weight_decay)?;
                "lamb"
            }
            Optimizer::Lars(lars) => {
                number("optimizer.lars.momentum", lars.momentum, 0.0, 0.9999)?;
                number("optimizer.lars.weightDecay", lars.weight_decay, 0.0, 1.0)?;
                number("optimizer.lars.trust", lars.trust, 0.0, 10.0)?;
                "lars"
            }
        };
        number(&format!("optimizer.{name}.learningRate"), self.optimizer.learning_rate(), 0.0, 1000.0)
    }

    fn check_epsilons(&self) -> Result<(), InvalidTraining> {
        let most = self.largest_epsilon();
        let size = |field: &str, epsilon: Option<&Epsilon>| size(field, epsilon, most);
        size("threatModel.epsilon", Some(&self.threat_model.epsilon))?;
        match &self.attack.method {
            Attack::Pgd(pgd) => size("attack.pgd.stepSize", pgd.step_size.as_ref()),
            Attack::Fgsm(fgsm) => size("attack.fgsm.stepSize", fgsm.step_size.as_ref()),
            Attack::NFgsm(n_fgsm) => size("attack.nFgsm.stepSize", n_fgsm.step_size.as_ref()),
        }
    }

    fn largest_epsilon(&self) -> f64 {
        match self.threat_model.norm {
            Norm::Linf => 1.0,
            Norm::L2 => 100.0,
        }
    }

    /// Which attacks go with which norm and objective.
    fn check_attack(&self) -> Result<(), InvalidTraining> {
        if self.smoothing.is_some() {
            if !matches!(self.objective, Objective::CrossEntropy(_)) {
                return refuse("smoothing", "requires objective.crossEntropy; use it, or remove smoothing");
            }
            if !matches!(self.attack.method, Attack::Pgd(_)) {
                return refuse("smoothing", "requires attack.pgd; use it, or remove smoothing");
            }
        }
        if let Some(overfitting) = &self.catastrophic_overfitting {
            number("catastrophicOverfitting.stepFactor", overfitting.step_factor, 0.1, 1.0)?;
            if matches!(self.attack.method, Attack::Pgd(_)) {
                return refuse(
                    "catastrophicOverfitting",
                    "requires attack.fgsm or attack.nFgsm; remove the field",
                );
            }
        }
        if matches!(self.attack.method, Attack::Pgd(_)) {
            return Ok(());
        }
        if self.threat_model.norm == Norm::L2 {
            return refuse("attack", "fgsm and nFgsm support only norm Linf; use pgd");
        }
        if matches!(self.objective, Objective::Trades(_) | Objective::Mart(_)) {
            return refuse("attack", "objective.trades and objective.mart require pgd; use pgd");
        }
        Ok(())
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

fn number(field: &str, value: f64, least: f64, most: f64) -> Result<(), InvalidTraining> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(field, &format!("invalid value {value}: must be between {least} and {most}, inclusive"))
}

fn count(field: &str, value: u32, least: u32, most: u32) -> Result<(), InvalidTraining> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(field, &format!("invalid value {value}: must be between {least} and {most}, inclusive"))
}

fn size(field: &str, epsilon: Option<&Epsilon>, most: f64) -> Result<(), InvalidTraining> {
    match epsilon {
        Some(size) if !(size.value() > 0.0 && size.value() <= most) => refuse(
            field,
            &format!(
                "invalid value {size}: must be greater than 0 and at most {most}, in units of the pixel range [0, 1]; \
                 for example \"8/255\""
            ),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
