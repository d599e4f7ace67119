"""Handwritten digits in Equinox, by ADADELTA: one computation for the gradients and the step.

    python examples/jax/equinox_digits.py

`steprule.jax.apply` takes parameters, gradients and state, and returns new parameters and state.
"""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import steprule.jax
from steprule import rules

step = steprule.jax.apply(rules.adadelta)


@eqx.filter_jit(donate="all-except-first")
def train_step(batch, net, state):
    def loss(net, images, labels):
        return optax.softmax_cross_entropy_with_integer_labels(jax.vmap(net)(images), labels).mean()

    grads = eqx.filter_grad(loss)(net, *batch)
    params, rest = eqx.partition(net, eqx.is_inexact_array)
    params, state = step(params, grads, state)
    return eqx.combine(params, rest), state


def main(epochs=20):
    """Return the share of test images that the net names rightly."""
    images, labels = load_digits(return_X_y=True)
    images, order = (images / 16).astype(np.float32), np.random.default_rng(0).permutation(len(images))
    train, test = order[:1297], order[1297:]
    net = eqx.nn.MLP(64, 10, 100, depth=1, activation=jax.numpy.tanh, key=jax.random.key(0))
    state = step.init(eqx.filter(net, eqx.is_inexact_array))
    for epoch in range(epochs):
        for batch in np.array_split(np.random.default_rng(epoch).permutation(train), 40):
            net, state = train_step((images[batch], labels[batch]), net, state)
    return float(np.mean(np.argmax(jax.vmap(net)(images[test]), axis=1) == labels[test]))


if __name__ == "__main__":
    print(f"{main():.1%} of 500 test images")
