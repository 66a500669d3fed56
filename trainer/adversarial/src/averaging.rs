//! Averaged weights (Izmailov et al., "Averaging weights leads to wider optima"; as an exponential moving average in Gowal
//! et al., arXiv 2010.03593, section 4.4): beside the weights that are trained, and of no effect on them.

use datjob_api::training::{Averaging, Ema};
use tch::{TchError, no_grad};

use crate::model::{ModelError, Network};

/// A network whose parameters and BatchNorm statistics are the moving average of another's.
#[derive(Debug)]
pub struct Average {
    /// It.
    pub network: Network,
    decay: f64,
}

impl Average {
    /// Begins with the state of `live`; `network` is another of the same form.
    pub fn new(spec: &Averaging, network: Network, live: &Network) -> Result<Self, ModelError> {
        let Averaging::Ema(Ema { decay }) = *spec;
        network.load_state(live.state())?;
        Ok(Self { network, decay })
    }

    /// Takes in the state of `live` after step `number`, counted from 1: average ← d · average + (1 − d) · state with
    /// d = min(decay, (1 + number) / (10 + number)). Counters are taken over as they are.
    pub fn update(&mut self, live: &Network, number: u64) -> Result<(), TchError> {
        let number = number as f64;
        let share = 1.0 - self.decay.min((1.0 + number) / (10.0 + number));
        no_grad(|| {
            for ((_, mut average), (_, live)) in self.network.state().into_iter().zip(live.state()) {
                if average.is_floating_point() {
                    let _ = average.f_lerp_(&live, share)?;
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
    fn weights_and_statistics_are_averaged_and_counters_taken_over() {
        let live = network();
        let spec = Averaging::Ema(Ema { decay: 0.25 });
        let mut average = Average::new(&spec, network(), &live).unwrap();
        let mut by_hand: Vec<Tensor> =
            live.state().into_iter().map(|(_, tensor)| tensor.detach().copy()).collect();
        // In the first step (1 + 1) / (10 + 1) is less than the decay, then no longer.
        for (number, kept) in [(1_u64, 2.0 / 11.0), (2, 0.25), (3, 0.25)] {
            let images = Tensor::rand([4, 3, 8, 8], (Kind::Double, Device::Cpu));
            let _logits = live.forward(&images, Mode::Train).unwrap();
            no_grad(|| {
                for (_, mut weights) in live.parameters() {
                    let _ = weights.g_add_scalar_(0.5);
                }
            });
            average.update(&live, number).unwrap();
            for (expected, (_, live)) in by_hand.iter_mut().zip(live.state()) {
                *expected = if live.is_floating_point() {
                    &*expected * kept + live.detach() * (1.0 - kept)
                } else {
                    live.copy()
                };
            }
        }
        for ((name, found), expected) in average.network.state().iter().zip(&by_hand) {
            assert!(found.detach().allclose(expected, 1e-12, 1e-12, false), "{name}");
        }
        let state = average.network.state();
        let (_, counter) = state.iter().find(|(name, _)| name.ends_with("num_batches_tracked")).unwrap();
        assert_eq!(counter.int64_value(&[]), 3);
    }
}
