"""Handwritten digits in Flax NNX, by ADADELTA with no rate to set.

    python examples/jax/flax_digits.py

`steprule.jax.adadelta()` is a transformation of optax, which `nnx.Optimizer` takes as it takes optax's own.
"""

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import steprule.jax


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 100, rngs=rngs)
        self.out = nnx.Linear(100, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(jax.numpy.tanh(self.hidden(x)))


@nnx.jit
def train_step(net, optimizer, images, labels):
    def loss(net):
        return optax.softmax_cross_entropy_with_integer_labels(net(images), labels).mean()

    optimizer.update(net, nnx.grad(loss)(net))


def main(epochs=20):
    """Return the share of test images that the net names rightly."""
    images, labels = load_digits(return_X_y=True)
    images, order = (images / 16).astype(np.float32), np.random.default_rng(0).permutation(len(images))
    train, test = order[:1297], order[1297:]
    net = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(net, steprule.jax.adadelta(), wrt=nnx.Param)
    for epoch in range(epochs):
        for batch in np.array_split(np.random.default_rng(epoch).permutation(train), 40):
            train_step(net, optimizer, images[batch], labels[batch])
    return float(np.mean(np.argmax(net(images[test]), axis=1) == labels[test]))


if __name__ == "__main__":
    print(f"{main():.1%} of 500 test images")
