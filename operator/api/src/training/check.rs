//! What a training spec must satisfy, for manifests that never met an API server and for what no schema can say.

use super::{
    Attack, Averaging, Decay, DuringAttack, Epsilon, FinalAttack, Norm, Objective, Optimizer, Source,
    Training,
};

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
        self.check_epsilons()?;
        self.check_model()?;
        self.check_attack()?;
        self.check_backend(topology)?;
        self.check_world(topology.world_size())
    }

    fn check_model(&self) -> Result<(), InvalidTraining> {
        let super::Model { architecture, stem, .. } = self.model;
        if stem == super::Stem::ImageNet && !architecture.has_stems() {
            return refuse(
                "model.stem",
                &format!(
                    "{architecture} has one form only; leave it out, or choose resnet18, resnet34 or resnet50"
                ),
            );
        }
        Ok(())
    }

    fn check_backend(&self, Topology { workers, gpus, .. }: Topology) -> Result<(), InvalidTraining> {
        if self.communication.backend.uses_nccl(workers, gpus).is_some() {
            return Ok(());
        }
        let problem = match gpus {
            0 => {
                "NCCL carries gradients from GPU to GPU, and no GPU is asked for; ask for nvidia.com/gpu in \
                  spec.pod.resources.limits (--gpus on a workstation), or write Auto"
                    .to_owned()
            }
            _ => format!(
                "NCCL needs a GPU for each rank, and {workers} workers share {gpus} in each pod; write Gloo or Auto, or \
                 as many workers as GPUs"
            ),
        };
        refuse("communication.backend", &problem)
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
            number("weightPerturbation.gamma", perturbation.gamma, 0.0, 1.0)?;
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
                        "goes with decay.piecewise and decay.cosine: a cyclic schedule rises by itself",
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
        count("data.validation.count", self.data.validation.count, 1, 40_000)?;
        count("data.augmentation.crop", self.data.augmentation().0, 0, 16)?;
        count("checkpoint.everyEpochs", self.checkpoint.every_epochs, 1, 10_000)?;
        count("checkpoint.keep.last", self.checkpoint.keep.last, 1, 1000)?;
        count("evaluation.everyEpochs", self.evaluation.every_epochs, 1, 10_000)?;
        let DuringAttack::Pgd(during) = &self.evaluation.during;
        count("evaluation.during.pgd.steps", during.steps, 1, 1000)?;
        if !(1..=16).contains(&self.evaluation.final_.len()) {
            return refuse("evaluation.final", "name 1 to 16 attacks");
        }
        self.evaluation.final_.iter().try_for_each(|attack| self.check_final_attack(attack))?;
        self.check_sweep()?;
        self.check_certify()?;
        self.check_target()?;
        match &self.attack {
            Attack::Pgd(pgd) => count("attack.pgd.steps", pgd.steps, 1, 1000)?,
            Attack::NFgsm(n_fgsm) => number("attack.nFgsm.noise", n_fgsm.noise, 0.0, 10.0)?,
            Attack::Fgsm(_) => {}
        }
        if let Source::Http(http) = &self.data.source {
            if !http.url.starts_with("http://") && !http.url.starts_with("https://") {
                return refuse("data.source.http.url", "must begin with http:// or https://");
            }
            if http.sha256.len() != 64 || !http.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            {
                return refuse(
                    "data.source.http.sha256",
                    "write the archive's SHA-256 as 64 lower-case hexadecimal digits",
                );
            }
        }
        Ok(())
    }

    fn check_sweep(&self) -> Result<(), InvalidTraining> {
        let Some(sweep) = &self.evaluation.sweep else { return Ok(()) };
        if sweep.epsilon.len() > 16 || sweep.steps.len() > 16 {
            return refuse("evaluation.sweep", "name at most 16 radii and 16 numbers of steps");
        }
        let most = self.largest_epsilon();
        sweep.steps.iter().try_for_each(|&steps| count("evaluation.sweep.steps", steps, 1, 10_000))?;
        sweep.epsilon.iter().try_for_each(|epsilon| size("evaluation.sweep.epsilon", Some(epsilon), most))
    }

    fn largest_epsilon(&self) -> f64 {
        match self.threat_model.norm {
            Norm::Linf => 1.0,
            Norm::L2 => 100.0,
        }
    }

    fn check_certify(&self) -> Result<(), InvalidTraining> {
        let Some(certify) = &self.evaluation.certify else { return Ok(()) };
        count("evaluation.certify.images", certify.images, 1, self.data.dataset.test_images() as u32)?;
        count("evaluation.certify.selectionSamples", certify.selection_samples, 1, 1_000_000)?;
        count("evaluation.certify.samples", certify.samples, 1, 100_000_000)?;
        number("evaluation.certify.alpha", certify.alpha, 0.0001, 0.5)?;
        match self.certified_sigma() {
            Some(sigma) => number("evaluation.certify.sigma", sigma, 0.001, 10.0),
            None => {
                refuse("evaluation.certify.sigma", "write the deviation of the noise: there is no smoothing")
            }
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
                    "{name} is no attack of evaluation.final; write {} or leave it out",
                    names.join(" or ")
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
            FinalAttack::Pgd(pgd) => {
                bound("pgd", "steps", pgd.steps, 10_000)?;
                bound("pgd", "restarts", pgd.restarts(), 1000)
            }
            FinalAttack::Cw(pgd) => {
                bound("cw", "steps", pgd.steps, 10_000)?;
                bound("cw", "restarts", pgd.restarts(), 1000)
            }
            FinalAttack::ApgdCe(apgd) => {
                bound("apgdCe", "steps", apgd.steps(), 10_000)?;
                bound("apgdCe", "restarts", apgd.restarts(), 1000)
            }
            FinalAttack::ApgdT(targeted) | FinalAttack::FabT(targeted) => {
                let method = if matches!(attack, FinalAttack::ApgdT(_)) { "apgdT" } else { "fabT" };
                bound(method, "steps", targeted.steps(), 10_000)?;
                bound(method, "targets", targeted.targets(), self.data.dataset.classes() as u32 - 1)
            }
            FinalAttack::Square(square) => {
                bound("square", "queries", square.queries(), 100_000)?;
                bound("square", "restarts", square.restarts(), 1000)
            }
            FinalAttack::AutoAttack(_) => Ok(()),
        }
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
        let DuringAttack::Pgd(during) = &self.evaluation.during;
        size("threatModel.epsilon", Some(&self.threat_model.epsilon))?;
        size("evaluation.during.pgd.stepSize", during.step_size.as_ref())?;
        match &self.attack {
            Attack::Pgd(pgd) => size("attack.pgd.stepSize", pgd.step_size.as_ref())?,
            Attack::Fgsm(fgsm) => size("attack.fgsm.stepSize", fgsm.step_size.as_ref())?,
            Attack::NFgsm(n_fgsm) => size("attack.nFgsm.stepSize", n_fgsm.step_size.as_ref())?,
        }
        self.evaluation.final_.iter().try_for_each(|attack| match attack {
            FinalAttack::Pgd(pgd) => size("evaluation.final.pgd.stepSize", pgd.step_size.as_ref()),
            FinalAttack::Cw(pgd) => size("evaluation.final.cw.stepSize", pgd.step_size.as_ref()),
            FinalAttack::ApgdCe(_)
            | FinalAttack::ApgdT(_)
            | FinalAttack::FabT(_)
            | FinalAttack::Square(_)
            | FinalAttack::AutoAttack(_) => Ok(()),
        })
    }

    /// Which attacks go with which norm and objective.
    fn check_attack(&self) -> Result<(), InvalidTraining> {
        if self.smoothing.is_some() {
            if !matches!(self.objective, Objective::CrossEntropy(_)) {
                return refuse("smoothing", "goes with objective.crossEntropy alone");
            }
            if !matches!(self.attack, Attack::Pgd(_)) {
                return refuse("smoothing", "goes with attack.pgd alone");
            }
        }
        if let Some(overfitting) = &self.catastrophic_overfitting {
            number("catastrophicOverfitting.stepFactor", overfitting.step_factor, 0.1, 1.0)?;
            if matches!(self.attack, Attack::Pgd(_)) {
                return refuse("catastrophicOverfitting", "goes with attack.fgsm and attack.nFgsm");
            }
        }
        if matches!(self.attack, Attack::Pgd(_)) {
            return Ok(());
        }
        if self.threat_model.norm == Norm::L2 {
            return refuse("attack", "FGSM and N-FGSM are for the norm Linf; write pgd");
        }
        if matches!(self.objective, Objective::Trades(_) | Objective::Mart(_)) {
            return refuse("attack", "TRADES and MART are trained with pgd; write pgd");
        }
        Ok(())
    }

    fn check_world(&self, world_size: u32) -> Result<(), InvalidTraining> {
        let batch = self.schedule.batch_size;
        if batch < world_size {
            return refuse(
                "schedule.batchSize",
                &format!(
                    "{batch} is less than the {world_size} ranks of the world: each needs an image in every step"
                ),
            );
        }
        let training =
            self.data.dataset.training_images().saturating_sub(self.data.validation.count as usize);
        let smallest = training / training.div_ceil(batch as usize).max(1);
        if smallest < world_size as usize {
            return refuse(
                "schedule.batchSize",
                &format!(
                    "an epoch of {training} images in steps of at most {batch} has steps of {smallest}, less than the \
                     {world_size} ranks of the world"
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
    refuse(field, &format!("{value} is not within {least} and {most}"))
}

fn count(field: &str, value: u32, least: u32, most: u32) -> Result<(), InvalidTraining> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(field, &format!("{value} is not within {least} and {most}"))
}

fn size(field: &str, epsilon: Option<&Epsilon>, most: f64) -> Result<(), InvalidTraining> {
    match epsilon {
        Some(size) if !(size.value() > 0.0 && size.value() <= most) => refuse(
            field,
            &format!(
                "{size} is not within 0 (excluded) and {most}: pixels lie in [0, 1], write for example \"8/255\""
            ),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Backend, *};

    fn example() -> Training {
        serde_json::from_value(serde_json::json!({
            "model": {"architecture": "small-cnn"},
            "data": {"dataset": "fashion-mnist", "source": {"image": {"reference": "data"}}},
            "threatModel": {"epsilon": "0.1"},
            "attack": {"fgsm": {}},
            "schedule": {"epochs": 2}
        }))
        .unwrap()
    }

    const TWO: Topology = Topology { pods: 2, workers: 1, gpus: 0 };

    fn problem(change: impl FnOnce(&mut Training)) -> String {
        let mut training = example();
        change(&mut training);
        training.check(TWO).unwrap_err().to_string()
    }

    #[test]
    fn the_shortest_manifest_is_complete() {
        example().check(TWO).unwrap();
    }

    #[test]
    fn each_refusal_names_its_field() {
        let epsilon = |text: &str| text.parse().unwrap();
        assert!(
            problem(|t| t.threat_model.epsilon = epsilon("8"))
                .starts_with("spec.training.threatModel.epsilon: 8 ")
        );
        assert!(problem(|t| t.threat_model.epsilon = epsilon("0")).contains("threatModel.epsilon"));
        assert!(problem(|t| t.schedule.batch_size = 1).contains("less than the 2 ranks"));
        assert!(problem(|t| t.schedule.epochs = 0).contains("schedule.epochs"));
        assert!(problem(|t| t.schedule.warmup_epochs = 1).contains("warmupEpochs"));
        assert!(problem(|t| t.evaluation.final_.clear()).contains("evaluation.final"));
        let stem = problem(|t| t.model.stem = crate::training::Stem::ImageNet);
        assert!(stem.starts_with("spec.training.model.stem: small-cnn has one form"), "{stem}");
        let nccl = problem(|t| t.communication.backend = Backend::Nccl);
        assert!(nccl.starts_with("spec.training.communication.backend: ") && nccl.contains("nvidia.com/gpu"));
        let sgd = crate::training::Sgd { learning_rate: f64::NAN, ..Default::default() };
        assert!(problem(|t| t.optimizer = Optimizer::Sgd(sgd)).contains("learningRate"));
    }

    #[test]
    fn a_sweep_has_bounds() {
        let sweep = |json: &str| {
            let sweep = serde_json::from_str(json).unwrap();
            problem(|t| t.evaluation.sweep = Some(sweep))
        };
        assert!(sweep(r#"{"epsilon": ["0.1", "2"]}"#).contains("evaluation.sweep.epsilon: 2 is not within"));
        assert!(sweep(r#"{"steps": [10, 0]}"#).contains("evaluation.sweep.steps: 0 is not within"));
        assert!(sweep(&format!(r#"{{"steps": {:?}}}"#, [1; 17])).contains("at most 16"));
    }

    #[test]
    fn smoothing_and_certification_have_their_noise() {
        let smoothing = |t: &mut Training| t.smoothing = serde_json::from_str(r#"{"sigma": 0.25}"#).unwrap();
        assert!(problem(smoothing).contains("smoothing: goes with attack.pgd"));
        let certify = |t: &mut Training| t.evaluation.certify = Some(crate::training::Certify::default());
        assert!(problem(certify).contains("evaluation.certify.sigma: write the deviation"));
        let mut both = example();
        smoothing(&mut both);
        certify(&mut both);
        both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
        both.check(TWO).unwrap();
        assert!(both.certified_sigma().is_some_and(|sigma| (sigma - 0.25).abs() < 1e-12));
    }

    #[test]
    fn a_target_names_an_attack_that_is_there() {
        let mut training = example();
        let target = |attack: Option<&str>| crate::training::Target {
            attack: attack.map(str::to_owned),
            accuracy: 45.0,
        };
        for attack in [None, Some("pgd-20")] {
            training.evaluation.target = Some(target(attack));
            training.check(TWO).unwrap();
        }
        let wrong = problem(|t| t.evaluation.target = Some(target(Some("autoattack"))));
        assert!(wrong.contains("evaluation.target.attack: autoattack") && wrong.contains("write pgd-20"));
    }

    #[test]
    fn attacks_norms_and_objectives_go_together() {
        let trades = |t: &mut Training| t.objective = serde_json::from_str(r#"{"trades": {}}"#).unwrap();
        assert!(problem(trades).starts_with("spec.training.attack: TRADES and MART"));
        let l2 = |t: &mut Training| {
            t.threat_model.norm = Norm::L2;
            t.threat_model.epsilon = "3.0".parse().unwrap();
        };
        assert!(problem(l2).starts_with("spec.training.attack: FGSM and N-FGSM are for the norm Linf"));
        let mut both = example();
        trades(&mut both);
        l2(&mut both);
        both.attack = serde_json::from_str(r#"{"pgd": {}}"#).unwrap();
        both.check(TWO).unwrap();
        both.threat_model.epsilon = "101".parse().unwrap();
        assert!(both.check(TWO).unwrap_err().to_string().contains("0 (excluded) and 100"));
    }

    #[test]
    fn targets_are_other_classes() {
        let apgd = |targets: u32| {
            FinalAttack::ApgdT(crate::training::Targeted { steps: None, targets: Some(targets) })
        };
        assert!(problem(|t| t.evaluation.final_ = vec![apgd(10)]).contains("evaluation.final.apgdT.targets"));
        let mut training = example();
        training.evaluation.final_ = vec![apgd(9)];
        training.check(TWO).unwrap();
        assert_eq!(apgd(9).name(), "apgd-t-100-9");
    }

    #[test]
    fn every_optimizer_is_bounded_and_batches_scale_its_rate() {
        for (optimizer, field) in [
            (r#"{"lamb": {"beta2": 1.0}}"#, "optimizer.lamb.beta2"),
            (r#"{"adamW": {"epsilon": -1}}"#, "optimizer.adamW.epsilon"),
            (r#"{"lars": {"trust": 11}}"#, "optimizer.lars.trust"),
            (r#"{"lars": {"learningRate": 1e9}}"#, "optimizer.lars.learningRate"),
        ] {
            let sentence = problem(|t| t.optimizer = serde_json::from_str(optimizer).unwrap());
            assert!(sentence.starts_with(&format!("spec.training.{field}: ")), "{sentence}");
        }
        let scale = |rule: &str| {
            let mut schedule = example().schedule;
            schedule.batch_size = 1024;
            let json = format!(r#"{{"rule": "{rule}", "baseBatchSize": 256}}"#);
            schedule.scaling = Some(serde_json::from_str(&json).unwrap());
            schedule.scale()
        };
        assert!((scale("Linear") - 4.0).abs() < 1e-12 && (scale("SquareRoot") - 2.0).abs() < 1e-12);
        assert!((example().schedule.scale() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn nccl_wants_a_gpu_for_each_rank() {
        let mut training = example();
        training.communication.backend = Backend::Nccl;
        training.check(Topology { pods: 2, workers: 4, gpus: 4 }).unwrap();
        let problem = training.check(Topology { pods: 2, workers: 4, gpus: 2 }).unwrap_err().to_string();
        assert!(problem.contains("4 workers share 2"), "{problem}");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let mut json = serde_json::to_value(example()).unwrap();
        json["attack"] = serde_json::json!({"fgsm": {"stepsize": "0.1"}});
        assert!(serde_json::from_value::<Training>(json).unwrap_err().to_string().contains("stepsize"));
    }

    #[test]
    fn the_hash_follows_the_content() {
        let mut other = example();
        assert_eq!(example().hash(), other.hash());
        other.seed = 1;
        assert_ne!(example().hash(), other.hash());
    }
}
