"""Networks compute the same with norms, additions and activations inside their convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from gfocal.nn.backbone import create_backbone, freeze_norms, make_deformable
from gfocal.runtime.fusing import NORMS, fold_norms, fuse_activations, fuse_additions, skip_identities, traced
from gfocal.runtime.packing import PackedConv2d, pack


def settled(network: nn.Module) -> nn.Module:
    """Return the network as if it had been trained: no norm of it does nothing."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return network.eval()


def fused(network: nn.Module, dtype: torch.dtype = torch.float32) -> fx.GraphModule:
    graph = traced(network)
    assert graph is not None
    skip_identities(graph)
    fold_norms(graph)
    pack(graph, dtype)
    fuse_additions(graph)
    fuse_activations(graph)
    graph.recompile()
    return graph


def counts(graph: nn.Module, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> int:
    return sum(isinstance(module, kinds) for module in graph.modules())


def assert_same(network: nn.Module, graph: nn.Module, images: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        for ours, theirs in zip(graph(images), network(images), strict=True):
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "res2net50d", "mobilenetv3_small_050", "regnetx_002"])
@pytest.mark.parametrize("frozen", [False, True], ids=["learning norms", "frozen norms"])
def test_backbones_keep_their_features_and_lose_their_norms(name: str, *, frozen: bool) -> None:
    network = settled(create_backbone(name))
    if frozen:
        freeze_norms(network, affine=True)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    graph = fused(network)
    for size in ((64, 96), (32, 32)):
        assert_same(network, graph, torch.randn(2, 3, *size).to(memory_format=torch.channels_last), 1e-5)
    assert counts(graph, NORMS) == 0
    assert counts(graph, PackedConv2d) == counts(network, nn.Conv2d)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_every_activation_of_a_resnet_is_part_of_a_convolution() -> None:
    graph = fused(settled(create_backbone("resnet18")))
    assert counts(graph, nn.ReLU) == 0
    assert sum(module.rectified for module in graph.modules() if isinstance(module, PackedConv2d)) == 17
    assert not [node for node in graph.graph.nodes if node.op == "call_function"]


def test_norms_of_deformable_convolutions_are_folded_too() -> None:
    network = settled(create_backbone("resnet18"))
    make_deformable(network, (2, 3), version=1)
    for name, weight in network.named_parameters():
        if "conv_offset" in name:
            nn.init.normal_(weight, std=0.05)
    graph = fused(network)
    assert_same(network, graph, torch.randn(1, 3, 64, 64), 1e-5)
    assert counts(graph, NORMS) == 0


class Shared(nn.Module):
    """A norm behind two convolutions, a convolution before two norms, and one whose output is seen twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.other, self.last = (nn.BatchNorm2d(3) for _ in range(3))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> list[Tensor]:
        both = self.norm(self.first(x)) + self.norm(self.second(x))
        again = self.other(self.first(both))
        seen = self.third(again)
        return [both, self.last(seen), self.relu(seen), seen + 1]


def test_what_is_used_twice_stays_as_it_is() -> None:
    network = settled(Shared())
    graph = fused(network)
    assert counts(graph, nn.BatchNorm2d) == 3
    assert not any(module.rectified for module in graph.modules() if isinstance(module, PackedConv2d))
    assert_same(network, graph, torch.randn(1, 3, 9, 8), 1e-5)


class Sums(nn.Module):
    """Sums of two convolutions, of one with itself, and with a weight of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 4, 1, bias=False) for _ in range(3))
        self.weight = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        both = torch.relu(self.first(x) + self.second(x))
        third = self.third(x) + self.weight
        return [both, third, torch.add(third, both, alpha=2)]


def test_sums_are_exact_whatever_is_added() -> None:
    network = Sums().eval()
    assert_same(network, fused(network), torch.randn(2, 3, 5, 6), 1e-6)


class Choosy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_depends_on_values_is_not_traced() -> None:
    assert traced(Choosy()) is None


@pytest.mark.parametrize("rectified", [False, True])
def test_what_is_added_may_be_of_another_shape(*, rectified: bool) -> None:
    conv = nn.Conv2d(4, 16, 3, stride=2, padding=1)
    packed = PackedConv2d(conv, torch.float32)
    packed.rectified = rectified
    with torch.no_grad():
        for shape, others in (
            ((1, 4, 2, 2), ((1, 16, 6, 8), (2, 16, 1, 1), (1, 1, 1, 1))),
            ((2, 4, 9, 12), ((2, 16, 5, 6), (1, 16, 1, 1))),
        ):
            x = torch.randn(shape)
            for other in map(torch.randn, others):
                expected = conv(x) + other
                found = packed(x, other)
                torch.testing.assert_close(found, expected.relu() if rectified else expected, rtol=1e-5, atol=1e-5)
