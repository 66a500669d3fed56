//! Averaged weights (Izmailov et al., "Averaging weights leads to wider optima"; as an exponential moving average in Gowal
//! et al., arXiv 2010.03593, section 4.4). They do not affect the weights that are trained.

use datjob_api::training::{Averaging, Ema};
use tch::{TchError, no_grad};

use crate::model::{ModelError, Network};

/// A network whose parameters and BatchNorm statistics are the moving average of another's.
#[derive(Debug)]
pub struct AveragedNetwork {
    /// The network that holds the average.
    pub network: Network,
    decay: f64,
}

impl AveragedNetwork {
    /// Copies the state of `live` into `network`, another network of the same architecture.
    pub fn new(spec: &Averaging, network: Network, live: &Network) -> Result<Self, ModelError> {
        let Averaging::Ema(Ema { decay }) = *spec;
        network.load_state(live.state())?;
        Ok(Self { network, decay })
    }

    /// Updates the average with the state of `live` after step `number`, counted from 1:
    /// average ← d · average + (1 − d) · state with d = min(decay, (1 + number) / (10 + number)). Counters are copied.
    pub fn update(&mut self, live: &Network, number: u64) -> Result<(), TchError> {
        let number = number as f64;
        let weight = 1.0 - self.decay.min((1.0 + number) / (10.0 + number));
        no_grad(|| {
            for ((_, mut average), (_, live)) in self.network.state().into_iter().zip(live.state()) {
                if average.is_floating_point() {
                    let _ = average.f_lerp_(&live, weight)?;
                } else {
                    average.f_copy_(&live)?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use datjob_api::training::Architecture;
    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::model::Mode;

    fn network() -> Network {
        let options = (Kind::Double, Device::Cpu);
        Network::new(&Architecture::Resnet18.into(), [3, 8, 8], 4, 0, options).unwrap()
    }

    #[test]
    fn averages_weights_and_statistics_and_copies_counters() {
        let live = network();
        let spec = Averaging::Ema(Ema { decay: 0.25 });
        let mut average = AveragedNetwork::new(&spec, network(), &live).unwrap();
        let mut expected: Vec<Tensor> =
            live.state().into_iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        // Only in the first step is (1 + 1) / (10 + 1) less than the decay.
        for (number, decay) in [(1_u64, 2.0 / 11.0), (2, 0.25), (3, 0.25)] {
            let images = Tensor::rand([4, 3, 8, 8], (Kind::Double, Device::Cpu));
            let _logits = live.forward(&images, Mode::Train).unwrap();
            no_grad(|| {
                for (_, mut weights) in live.parameters() {
                    let _ = weights.g_add_scalar_(0.5);
                }
            });
            average.update(&live, number).unwrap();
            for (expected, (_, live)) in expected.iter_mut().zip(live.state()) {
                *expected = if live.is_floating_point() {
                    &*expected * decay + live.detach() * (1.0 - decay)
                } else {
                    live.copy()
                };
            }
        }
        for ((name, found), expected) in average.network.state().iter().zip(&expected) {
            assert!(found.detach().allclose(expected, 1e-12, 1e-12, false), "{name}");
        }
        let state = average.network.state();
        let (_, counter) = state.iter().find(|(name, _)| name.ends_with("num_batches_tracked")).unwrap();
        assert_eq!(counter.int64_value(&[]), 3);
    }
}
