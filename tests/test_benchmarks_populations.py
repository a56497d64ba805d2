"""The benchmark of populations compares like with like: members of a stack end as they would alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from autoxfer.optimising import group_of
from autoxfer.strategy import Fitted, Group

BENCHMARKS = Path(__file__).resolve().parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from population_studies import structure, together_at_most  # noqa: E402
from populations import Scene, train  # noqa: E402
from stacking import Member, Stack  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:grad and param do not obey")  # slices of a matrix never do
CPU = torch.device("cpu")
GROUPS = (Group("head", lr=2.0, decay=0.1), Group("body", lr=0.5, anchor=20.0), Group())


def members(seed: int, shape: tuple[int, ...] = (6,)) -> list[Member]:
    """Three of one structure, with other rates, lengths, batches, dropout, anchors, entries that stay, and a floor."""
    made = []
    for k, member in enumerate(Scene(shape, CPU, seed).members(3, 8, 16, 20)):
        module, trainer = member.candidate.module, member.trainer
        module.get_submodule("dropout").p = 0.2 * k  # type: ignore[assignment]
        mask = torch.zeros(module.get_parameter("head.weight").shape, dtype=torch.bool)
        mask[k] = True
        candidate = replace(member.candidate, groups=GROUPS, frozen={"head.weight": mask})
        trainer.recipe = replace(trainer.recipe, steps=24 + 8 * k, batch=8 * (k + 1), lr=0.02 * (k + 1), decay=0.1 * k)
        trainer._floors = ((0.5, 2.0),) if k == 1 else ()  # nobody reaches an accuracy of 2
        trainer._at_once.size = trainer.recipe.batch
        made.append(Member(candidate, trainer, member.generator))
    return made


def same(alone: Fitted, joint: Fitted) -> None:
    assert joint.steps == alone.steps
    assert bool(joint.stopped) == bool(alone.stopped)
    assert joint.notes["kept"] == alone.notes["kept"]
    assert [rank for _, rank in joint.curve] == pytest.approx(
        [rank for _, rank in alone.curve], abs=0.006
    )  # an example
    assert joint.score.loss == pytest.approx(alone.score.loss, rel=1e-4)
    for name, value in alone.state.items():
        torch.testing.assert_close(joint.state[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_member_of_a_stack_ends_as_it_would_alone(seed: int) -> None:
    for alone, joint in zip(train(members(seed), "alone"), train(members(seed), "products"), strict=True):
        same(alone, joint)


def test_the_members_of_the_test_differ_in_what_could_be_mixed_up() -> None:
    made = members(0)
    ends = train(made, "products")
    assert [end.steps for end in ends] == [24, 16, 40]  # the second was stopped halfway
    assert all(end.notes["kept"] > 0 for end in ends)  # what is compared was trained
    assert len({end.score.loss for end in ends}) == 3
    assert group_of("head.weight", GROUPS).decay == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(6,), (1, 8, 8)], ids=["vectors", "images"])
def test_vmap_gives_what_the_members_give_alone(shape: tuple[int, ...]) -> None:
    scene = Scene(shape, CPU, 0)
    ends = zip(train(scene.members(2, 2, 16, 12), "alone"), train(scene.members(2, 2, 16, 12), "vmap"), strict=True)
    for alone, joint in ends:
        same(alone, joint)


def test_a_network_that_products_cannot_follow_is_not_stacked() -> None:
    made = [
        replace(member, candidate=replace(member.candidate, module=nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 10))))
        for member in Scene((6,), CPU, 0).members(2, 0, 16, 4)
    ]
    nn.init.constant_(made[1].candidate.module.get_parameter("0.weight"), 2.0)
    assert not Stack(made).fits()


def test_another_width_is_another_structure() -> None:
    scene = Scene((6,), CPU, 0)
    narrow, wide = (scene.members(2, width, 16, 4) for width in (2, 3))
    assert structure(narrow[0].candidate) == structure(narrow[1].candidate)
    assert structure(narrow[0].candidate) != structure(wide[0].candidate)


@pytest.mark.parametrize(("n_trials", "most"), [(3, 1), (8, 2), (20, 5), (100, 8)])
def test_a_generation_is_a_quarter_of_the_trials_and_at_most_eight(n_trials: int, most: int) -> None:
    assert together_at_most(n_trials) == most


@pytest.mark.slow
def test_populations_are_compared_with_training_alone(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "populations.py"), "--smoke", "--json", "--strategies", "fine_tune"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert {row["structure"] for row in value["rows"]} == {"two layers of 64 on 12", "convolutions on 8 x 8"}
    assert all(row["loss_off"] < 1e-4 for row in value["rows"])
    (study,) = value["studies"]
    assert study["stacks"] == "2 2 2 2"
    assert study["joint_times"] == pytest.approx(study["alone_s"] / study["joint_s"])
    assert study["score_off"] < 1e-4
