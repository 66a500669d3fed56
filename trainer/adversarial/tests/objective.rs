//! The losses of uneven shards add up to the loss of the batch.

use datjob_adversarial::{
    model::{Mode, Network},
    objective::{loss, summed_cross_entropy},
    tensors::training_noise,
};
use datjob_api::training::{Architecture, CrossEntropy, Objective};
use datjob_data::{IGNORE_INDEX, random::Start};
use tch::{Device, Kind, Tensor};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

fn network() -> Network {
    Network::new(&Architecture::SmallCnn.into(), [1, 28, 28], 10, 0, DOUBLE).unwrap()
}

fn images(count: i64) -> (Tensor, Tensor, Tensor) {
    let indices: Vec<usize> = (0..count as usize).collect();
    let images = training_noise(0, 0, &indices, [1, 28, 28], Start::Linf { radius: 0.5 })
        .unwrap()
        .to_kind(Kind::Double)
        + 0.5;
    let adversarial = training_noise(0, 1, &indices, [1, 28, 28], Start::Linf { radius: 0.5 })
        .unwrap()
        .to_kind(Kind::Double)
        + 0.5;
    (images, adversarial, Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(10))
}

/// Returns the gradients of a loss and zeroes those of the network.
fn gradients(network: &Network, loss: &Tensor) -> Vec<Tensor> {
    loss.backward();
    let take = |(_, mut parameter): (String, Tensor)| {
        let gradient = parameter.grad().copy();
        parameter.zero_grad();
        gradient
    };
    network.parameters().into_iter().map(take).collect()
}

#[test]
fn the_mean_over_uneven_shards_is_the_mean_over_images() {
    let network = network();
    let (images, adversarial, labels) = images(10);
    for objective in [
        "{\"crossEntropy\": {\"cleanWeight\": 0.5, \"labelSmoothing\": 0.1}}",
        "{\"trades\": {}}",
        "{\"mart\": {}}",
    ] {
        shards_add_up(&network, &serde_json::from_str(objective).unwrap(), &images, &adversarial, &labels);
    }
}

fn shards_add_up(
    network: &Network,
    objective: &Objective,
    images: &Tensor,
    adversarial: &Tensor,
    labels: &Tensor,
) {
    let whole = loss(network, objective, Mode::Train, images, adversarial, labels, 0.1).unwrap();
    let expected = gradients(network, &whole);

    // The third of four ranks has no images.
    let (world, bounds) = (4.0, [(0, 3), (3, 4), (7, 0), (7, 3)]);
    let (mut sum, mut found) = (0.0, Vec::new());
    for (start, length) in bounds {
        let shard = |tensor: &Tensor| tensor.narrow(0, start, length);
        let (images, adversarial, labels) = (shard(images), shard(adversarial), shard(labels));
        let local =
            loss(network, objective, Mode::Train, &images, &adversarial, &labels, world / 10.0).unwrap();
        sum += local.double_value(&[]);
        found.push(gradients(network, &local));
    }
    assert!((sum / world - whole.double_value(&[])).abs() < 1e-12);
    for (index, expected) in expected.iter().enumerate() {
        let mean = found.iter().map(|rank| rank[index].shallow_clone()).reduce(|a, b| a + b).unwrap() / world;
        assert!(mean.allclose(expected, 1e-9, 1e-12, false), "parameter {index}");
    }
}

#[test]
fn the_clean_loss_is_scaled_by_its_weight() {
    let network = network();
    let (images, adversarial, labels) = images(4);
    let value = |clean_weight, first: &Tensor, second: &Tensor| {
        let objective = Objective::CrossEntropy(CrossEntropy { clean_weight, label_smoothing: 0.0 });
        loss(&network, &objective, Mode::Train, first, second, &labels, 1.0).unwrap().double_value(&[])
    };
    let (clean, attacked) = (value(0.0, &images, &images), value(0.0, &images, &adversarial));
    assert!((value(3.0, &images, &adversarial) - (attacked + 3.0 * clean)).abs() < 1e-9);
}

#[test]
fn an_image_without_label_has_only_the_divergence_of_trades() {
    let network = network();
    let (images, adversarial, labels) = images(4);
    let without_last = labels.copy();
    let _ = without_last.get(3).fill_(IGNORE_INDEX);
    let objective = serde_json::from_str("{\"trades\": {}}").unwrap();
    let value = |labels: &Tensor| {
        loss(&network, &objective, Mode::Train, &images, &adversarial, labels, 1.0).unwrap().double_value(&[])
    };
    let logits = network.forward(&images.narrow(0, 3, 1), Mode::Train).unwrap();
    let last = summed_cross_entropy(&logits, &labels.narrow(0, 3, 1)).unwrap().double_value(&[]);
    assert!((value(&labels) - value(&without_last) - last).abs() < 1e-9);
}
