"""Which picture is learnt when hangs on the seed and the place alone."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gfocal.training.order import Order, seed_of


@given(
    length=st.integers(1, 30),
    batch=st.integers(1, 7),
    steps=st.integers(1, 20),
    seed=st.integers(0, 2**31),
    start=st.integers(0, 20),
)
def test_going_on_gives_the_rest(length: int, batch: int, steps: int, seed: int, start: int) -> None:
    whole = list(Order(length, batch=batch, steps=steps, seed=seed))
    assert len(whole) == steps
    assert list(Order(length, batch=batch, steps=steps, seed=seed, start=start)) == whole[start:]
    assert len(Order(length, batch=batch, steps=steps, seed=seed, start=start)) == max(steps - start, 0)


@given(length=st.integers(1, 30), batch=st.integers(1, 5), ranks=st.integers(1, 4), steps=st.integers(1, 10))
def test_processes_share_what_one_would_do(length: int, batch: int, ranks: int, steps: int) -> None:
    whole = list(Order(length, batch=batch * ranks, steps=steps, seed=3))
    parts = [list(Order(length, batch=batch, steps=steps, seed=3, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert [[draw for part in step for draw in part] for step in zip(*parts, strict=True)] == whole


@given(length=st.integers(1, 40), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_epoch_holds_every_picture_once(length: int, epochs: int, seed: int) -> None:
    draws = [draw for step in Order(length, batch=1, steps=length * epochs, seed=seed) for draw in step]
    for epoch in range(epochs):
        indices = [draw.index for draw in draws[epoch * length : (epoch + 1) * length]]
        assert sorted(indices) == list(range(length))
    assert len({draw.seed for draw in draws}) == len(draws)


@given(
    groups=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    batch=st.integers(1, 4),
    ranks=st.integers(1, 2),
    epochs=st.integers(1, 3),
)
def test_a_step_is_of_one_group_but_at_the_ends_of_an_epoch(
    groups: list[int], batch: int, ranks: int, epochs: int
) -> None:
    length, step = len(groups), batch * ranks
    many = Order(length, batch=step, steps=-(-length * epochs // step), seed=1, groups=np.array(groups, np.int64))
    draws = [draw.index for one in many for draw in one]
    for epoch in range(epochs):
        assert sorted(draws[epoch * length : (epoch + 1) * length]) == list(range(length))
        # steps that lie in this epoch as a whole: no more are mixed than what is left of each group fills
        first, last = -(-epoch * length // step), (epoch + 1) * length // step
        steps = [{groups[index] for index in draws[place * step : (place + 1) * step]} for place in range(first, last)]
        assert sum(len(one) > 1 for one in steps) < len(set(groups))
    part = Order(length, batch=batch, steps=many.steps, seed=1, ranks=ranks, groups=many.groups)
    assert [draw.index for draw in next(iter(part))] == draws[:batch]


def test_epochs_and_seeds_are_in_other_orders() -> None:
    first, second = (
        [draw.index for step in Order(50, batch=100, steps=1, seed=seed) for draw in step] for seed in (0, 1)
    )
    assert first[:50] != first[50:]
    assert first != second


def test_mixing_ends_at_its_step() -> None:
    steps = list(Order(4, batch=2, steps=6, seed=0, mixed=4))
    assert [all(draw.mixed for draw in step) for step in steps] == [True] * 4 + [False] * 2


def test_seeds_of_places_differ_and_stay() -> None:
    places = [(place,) for place in range(-50, 50)] + [(1, 2), (2, 1)]
    seeds = {seed_of(5, *place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, 0) == 7896617691693857887
