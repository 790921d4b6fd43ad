import copy
from typing import Any

import pytest
import pytorch_optimizer
import torch
from pydantic import ValidationError
from torch import nn
from torch.optim import lr_scheduler

from wsi_seg.config import OptimizerConfig, ScheduleConfig
from wsi_seg.learn.optim import build_optimizer, build_plateau, build_schedule, clip_gradients

EPOCHS, STEPS = 40, 5
NAMES = ["sgd", "adam", "adamw", "radam", "adabelief", "ranger", "lion"]


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(3, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


def follow(optimizer, schedule, count):
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def trace(name, **options):
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="sgd", lr=0.1))
    config = ScheduleConfig(name=name, **options)
    schedule = build_schedule(optimizer, config, epochs=EPOCHS, steps_per_epoch=STEPS)
    return follow(optimizer, schedule, EPOCHS * STEPS)


def torchs(kind, count=EPOCHS, **options):
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    return follow(optimizer, kind(optimizer, **options), count)


# Our schedules are per step; at the first step of each epoch they equal torch's per-epoch ones.


def test_constant():
    assert trace("constant") == [0.1] * EPOCHS * STEPS


def test_cosine_equals_torch_and_rises_after_its_end():
    rates = trace("cosine", epochs=8.0, min_lr=1e-7)
    expected = torchs(lr_scheduler.CosineAnnealingLR, T_max=8, eta_min=1e-7)
    assert rates[::STEPS] == pytest.approx(expected, abs=1e-6)
    assert rates[8 * STEPS] == pytest.approx(1e-7, abs=1e-6)
    assert rates[16 * STEPS] == pytest.approx(0.1, abs=1e-6)
    assert min(trace("cosine")) == trace("cosine")[-1]


def test_warm_restarts_equal_torch():
    expected = torchs(lr_scheduler.CosineAnnealingWarmRestarts, T_0=1, T_mult=2)
    assert trace("warm_restarts")[::STEPS] == pytest.approx(expected, abs=1e-9)


def test_one_cycle_equals_torch():
    rates = trace("one_cycle", rise=0.2)
    total = EPOCHS * STEPS
    assert rates == pytest.approx(
        torchs(lr_scheduler.OneCycleLR, total, max_lr=0.1, total_steps=total + 1, pct_start=0.2)
    )
    assert rates[-1] < 0.001


def test_step_and_cyclic_equal_torch():
    assert trace("step", epochs=7.0, factor=0.5)[::STEPS] == pytest.approx(
        torchs(lr_scheduler.StepLR, step_size=7, gamma=0.5)
    )
    assert trace("cyclic", epochs=2.0, min_lr=0.01) == pytest.approx(
        torchs(lr_scheduler.CyclicLR, EPOCHS * STEPS, base_lr=0.01, max_lr=0.1,
               step_size_up=STEPS, cycle_momentum=False)
    )  # fmt: skip


def test_warm_up_precedes_the_schedule():
    rates = trace("cosine", warmup_epochs=2.0)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[2 * STEPS] == pytest.approx(0.1)
    assert rates[: 2 * STEPS] == sorted(rates[: 2 * STEPS])
    assert rates[-1] < 0.001


def test_plateau_equals_torch():
    scores = [0.1, 0.5, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]
    optimizer = build_optimizer(nn.Linear(2, 2), OptimizerConfig(name="sgd", lr=0.1))
    config = ScheduleConfig(name="plateau", threshold=1e-7, min_lr=1e-7)
    assert build_schedule(optimizer, config, epochs=9, steps_per_epoch=1) is None
    ours = build_plateau(optimizer, config)
    assert ours is not None
    reference = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    theirs = lr_scheduler.ReduceLROnPlateau(
        reference, "max", factor=0.1, patience=2, threshold=1e-7, min_lr=1e-7
    )
    seen = []
    for score in scores:
        ours.step(score)
        theirs.step(score)
        seen.append(optimizer.param_groups[0]["lr"])
        assert seen[-1] == reference.param_groups[0]["lr"]
    assert sorted({f"{rate:.0e}" for rate in seen}) == ["1e-01", "1e-02", "1e-03", "1e-04"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lookahead", [False, True])
def test_every_optimiser_finds_a_known_optimum(name, lookahead):
    if name == "ranger" and lookahead:
        pytest.skip("has it built in")
    lr = 0.01 if name in ("sgd", "lion") else 0.1
    p = nn.Parameter(torch.tensor([2.0, 0.5, 2.0, 5.0]))
    module = nn.ParameterDict({"weight": p})
    config = OptimizerConfig(name=name, lr=lr, weight_decay=0, lookahead=lookahead)
    optimizer = build_optimizer(module, config)
    optimum, stretch = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 1.0, 3.0]])
    for _ in range(1000):
        optimizer.zero_grad()
        ((p - optimum) ** 2 * stretch).sum().backward()
        optimizer.step()
    assert p.detach().flatten().tolist() == pytest.approx([1, 2, 3, 4], abs=0.05)


REFERENCES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9}, {}),
    "adam": (torch.optim.Adam, {"betas": (0.8, 0.99)}, {"betas": (0.8, 0.99)}),
    "adamw": (torch.optim.AdamW, {}, {}),
    "radam": (torch.optim.RAdam, {"decoupled_weight_decay": True}, {}),
    "adabelief": (
        pytorch_optimizer.AdaBelief,
        {"eps": 1e-16, "betas": (0.9, 0.99), "weight_decouple": True, "rectify": False},
        {"eps": 1e-16, "betas": (0.9, 0.99)},
    ),
    "ranger": (
        pytorch_optimizer.Ranger,
        {"betas": (0.95, 0.999), "k": 6, "alpha": 0.5, "eps": 1e-5, "use_gc": True},
        {},
    ),
    "lion": (pytorch_optimizer.Lion, {}, {}),
}


@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_the_library(name):
    kind, theirs, ours = REFERENCES[name]
    networks = Toy(), Toy()
    config = OptimizerConfig(name=name, lr=1e-2, weight_decay=1e-3, **ours)
    optimizers = (
        build_optimizer(networks[0], config),
        kind(networks[1].parameters(), lr=1e-2, weight_decay=1e-3, **theirs),
    )
    for step in range(7):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            network(torch.full((2, 3), step + 1.0)).square().mean().backward()
            optimizer.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def train_toy(network, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        network(torch.full((2, 3), step + 1.0)).square().mean().backward()
        optimizer.step()


def test_lookahead_equals_the_library_and_is_resumed():
    config = OptimizerConfig(name="adamw", lr=1e-2, lookahead=True)
    ours, theirs, again = Toy(), Toy(), Toy()
    optimizer = build_optimizer(ours, config)
    reference = pytorch_optimizer.Lookahead(
        torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=1e-4), k=5, alpha=0.5
    )
    train_toy(ours, optimizer, range(7))
    train_toy(theirs, reference, range(7))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-7)
    again.load_state_dict(ours.state_dict())
    taken_up = build_optimizer(again, config)
    taken_up.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train_toy(ours, optimizer, range(7, 20))
    train_toy(again, taken_up, range(7, 20))
    for one, other in zip(ours.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_encoder_may_have_its_own_learning_rate():
    network = Toy()
    optimizer = build_optimizer(network, OptimizerConfig(lr=0.1, encoder_lr=0.01))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(network.encoder.weight)] == 0.01
    assert rates[id(network.head.weight)] == 0.1
    build_schedule(optimizer, ScheduleConfig(), epochs=2, steps_per_epoch=10)
    first, second = (group["lr"] for group in optimizer.param_groups)
    assert first / second == pytest.approx(10)


def test_gradients_are_clipped_globally_and_by_unit():
    network: Any = Toy()
    (1e4 * network(torch.ones(1, 3))).sum().backward()
    clip_gradients(network, OptimizerConfig(clip_norm=0.1))
    norm = torch.cat([p.grad.flatten() for p in network.parameters()]).norm()
    assert norm.item() == pytest.approx(0.1, rel=1e-4)
    (1e4 * network(torch.ones(1, 3))).sum().backward()
    head = network.head.weight.grad.clone()
    clip_gradients(network, OptimizerConfig(agc=0.01))
    unit = network.encoder.weight
    assert (unit.grad.norm(dim=1) <= 0.0101 * unit.norm(dim=1)).all()
    assert torch.equal(network.head.weight.grad, head)


@pytest.mark.parametrize(
    ("section", "options", "message"),
    [
        (OptimizerConfig, {"name": "adam", "momentum": 0.5}, "adam takes no momentum"),
        (OptimizerConfig, {"name": "sgd", "betas": (0.9, 0.9)}, "sgd takes no betas"),
        (OptimizerConfig, {"name": "lion", "eps": 1e-8}, "lion takes no eps"),
        (OptimizerConfig, {"name": "ranger", "lookahead": True}, "ranger takes no lookahead"),
        (ScheduleConfig, {"name": "cosine", "patience": 2}, "cosine takes no patience"),
        (ScheduleConfig, {"name": "plateau", "warmup_epochs": 2.0}, "plateau takes no warmup"),
    ],
)
def test_options_of_another_name_are_refused(section, options, message):
    with pytest.raises(ValidationError, match=message):
        section(**options)
