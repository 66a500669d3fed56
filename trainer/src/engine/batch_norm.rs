//! BatchNorm statistics that are the same on every rank.

use datjob_c10d::{C10dError, ProcessGroup, ReduceOp};
use tch::{Kind, Tensor, no_grad};

const MEAN: &str = "running_mean";
const VARIANCE: &str = "running_var";

/// Averages the running statistics over all ranks. Each rank has seen other images: the mean of the whole is the mean
/// of the means, and its variance is `E[x²] − E[x]²`, so it is `E[x²]` that is averaged and never the variances.
///
/// `buffers` are a network's, by name; those named alike but for `running_mean` and `running_var` belong together.
pub fn average(buffers: &[(String, Tensor)], group: &ProcessGroup) -> Result<(), C10dError> {
    let pairs: Vec<(&Tensor, &Tensor)> = buffers
        .iter()
        .filter_map(|(name, mean)| {
            let variance = format!("{}{VARIANCE}", name.strip_suffix(MEAN)?);
            buffers.iter().find(|(other, _)| *other == variance).map(|(_, variance)| (mean, variance))
        })
        .collect();
    if pairs.is_empty() || group.world_size() == 1 {
        return Ok(());
    }
    no_grad(|| {
        // Doubles: E[x²] and E[x]² may be large and close.
        let moments = pairs.iter().flat_map(|(mean, variance)| {
            let (mean, variance) = (mean.to_kind(Kind::Double), variance.to_kind(Kind::Double));
            [mean.shallow_clone(), variance + mean.square()]
        });
        let all = Tensor::cat(&moments.collect::<Vec<_>>(), 0);
        group.all_reduce(&all, ReduceOp::Sum)?;
        let all = all / group.world_size() as f64;
        let mut offset = 0;
        for (mean, variance) in pairs {
            let channels = mean.size()[0];
            let average = all.narrow(0, offset, channels);
            let square = all.narrow(0, offset + channels, channels);
            offset += 2 * channels;
            variance.shallow_clone().copy_(&(square - average.square()).clamp_min(0.0));
            mean.shallow_clone().copy_(&average);
        }
        Ok(())
    })
}
