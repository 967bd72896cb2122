"""Multi-layer perceptron: linear layers with an activation between them, from Rosenblatt's neuron to tabular networks.

Papers: Rosenblatt 1958, "The perceptron"; Rumelhart, Hinton & Williams 1986, "Learning representations by
back-propagating errors"; dropout, Srivastava et al. 2014. Each hidden layer is

    linear -> norm -> activation -> dropout        (+ its input, with skip=True and equal widths: He et al. 2015, Eq. 1)

What comes out are logits, since the losses of torch take those; `output` sets another last activation. With no hidden
layer the network is one neuron per output:

    hidden=(), trained with cross-entropy on the logits   logistic (softmax) regression
    hidden=(), output="sigmoid"                           the same, giving probabilities
    hidden=(), output="step"                              the perceptron: the straight-through gradient of half the
                                                          squared error is its learning rule, (y' - y) x, as long as
                                                          the weighted sum lies within 1 of the threshold
"""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from engram.nn import Columns, initialise
from engram.nn import activation as activation_named
from engram.nn import norm as norm_named


class MLP(nn.Module):
    """(B, ...) of `features` numbers per row to (B, outputs).

    features:    numbers per row, all dimensions after the first multiplied; with `columns` its `out_features`
    outputs:     classes, or numbers to predict
    hidden:      width of each hidden layer
    activation:  one of `engram.nn.ACTIVATIONS`, after each hidden layer
    norm:        one of `engram.nn.NORMS`, before each activation
    dropout:     share of hidden values set to zero in training
    init:        one of `engram.nn.SCHEMES`; "auto" suits the activation
    skip:        add a layer's input to its output where the widths are equal
    columns:     turns a table's columns into the features; `forward` then takes (numeric, categorical)
    output:      activation of the last layer
    """

    def __init__(
        self,
        features: int,
        outputs: int,
        hidden: tuple[int, ...] = (256, 128),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
        init: str = "auto",
        skip: bool = False,
        columns: Columns | None = None,
        output: str = "linear",
    ) -> None:
        super().__init__()
        if columns is not None and columns.out_features != features:
            raise ValueError(f"columns give {columns.out_features} features, not the {features} asked for")
        self.columns = columns
        widths = (features, *hidden)
        self.hidden = nn.ModuleList(
            _Layer(a, b, activation, norm, dropout, skip and a == b and i > 0)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.head = nn.Linear(widths[-1], outputs)
        self.output = activation_named(output)
        initialise(self.hidden, init, activation)
        initialise(self.head, init, output)

    def forward(self, x: Tensor, categorical: Tensor | None = None) -> Tensor:
        """(B, ...) to (B, outputs); with `columns`, numeric (B, N) and categorical (B, C) int64 to (B, outputs)."""
        if self.columns is not None:
            if categorical is None:
                raise ValueError("an MLP with columns takes (numeric, categorical); pass (B, 0) where there are none")
            x = self.columns(x, categorical)
        x = x.flatten(1) if x.dim() > 2 else x
        for layer in self.hidden:
            x = layer(x)
        return self.output(self.head(x))

    def cost(self) -> int:
        """Multiply-adds per row of all linear layers."""
        linear = sum(layer.linear.weight.numel() for layer in self.hidden if isinstance(layer, _Layer))
        return linear + self.head.weight.numel() + (self.columns.cost() if self.columns is not None else 0)


class _Layer(nn.Module):
    """One hidden layer, (B, inputs) to (B, outputs)."""

    def __init__(self, inputs: int, outputs: int, activation: str, norm: str, dropout: float, skip: bool) -> None:
        super().__init__()
        # Batch norm subtracts the mean, so a bias before it could not change anything.
        self.linear = nn.Linear(inputs, outputs, bias=norm != "batch")
        self.norm = norm_named(norm, outputs, image=False)
        self.activation = activation_named(activation)
        self.dropout = nn.Dropout(dropout)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if not isinstance(self.norm, nn.Identity):  # calling a module that does nothing costs as much as a small one that does
            y = self.norm(y)
        y = self.activation(y)
        if self.dropout.p:
            y = self.dropout(y)
        return x + y if self.skip else y
