"""What the one training loop promises."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoxfer.metrics import get_metric
from autoxfer.records import Recipe, Score
from autoxfer.scoring import Target, measure
from autoxfer.strategy import Candidate, Fitted, Group, Raw
from autoxfer.testing.scenes import Scene, scene
from autoxfer.training import GradientTrainer, count_trained, set_modes

RECIPE = Recipe(lr=0.01, decay=0.0, steps=24, batch=16)


def trainer(tiny: Scene, recipe: Recipe = RECIPE, **settings: object) -> GradientTrainer:
    return GradientTrainer(tiny.features, tiny.problem, tiny.labels, tiny.tune, recipe, **{"seed": 3, **settings})  # type: ignore[arg-type]


def linear(tiny: Scene, **settings: object) -> Candidate:
    torch.manual_seed(0)
    return Candidate(nn.Linear(6, tiny.problem.n_outputs), (Raw(),), **settings)  # type: ignore[arg-type]


@pytest.fixture
def vectors() -> Scene:
    return scene("vector", "classification")


def state(fitted: Fitted) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in fitted.state.items()}


def test_the_state_before_the_first_step_is_a_checkpoint(vectors: Scene) -> None:
    candidate = linear(vectors)
    good = trainer(vectors).run(candidate)
    spoilt = replace(candidate, penalty=lambda module: 1e3 * (module.weight * good.state["weight"]).sum())
    again = trainer(vectors, replace(RECIPE, lr=1.0)).run(spoilt)  # learns the opposite
    assert again.curve[0] == (0.0, good.score.rank)
    assert again.curve[-1][1] < good.score.rank
    assert all(torch.equal(again.state[name], good.state[name]) for name in good.state)
    assert again.score == good.score


def test_the_module_is_left_at_the_checkpoint_that_was_kept(vectors: Scene) -> None:
    candidate = linear(vectors)
    loop = trainer(vectors)
    fitted = loop.run(candidate)
    assert loop.score(candidate) == fitted.score
    assert fitted.score.rank == max(rank for _, rank in fitted.curve)


def test_one_seed_gives_one_result_and_another_seed_another(vectors: Scene) -> None:
    runs = [state(trainer(vectors, seed=seed).run(linear(vectors))) for seed in (3, 3, 4)]
    assert torch.equal(runs[0]["weight"], runs[1]["weight"])
    assert not torch.equal(runs[0]["weight"], runs[2]["weight"])


def test_a_frozen_entry_does_not_move_though_weight_decay_pulls(vectors: Scene) -> None:
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[0] = True
    candidate = linear(vectors, frozen={"weight": mask})
    before = candidate.module.weight.detach().clone()
    fitted = trainer(vectors, replace(RECIPE, decay=0.5)).run(candidate)
    assert fitted.curve[-1][1] > fitted.curve[0][1]  # it did train
    after = candidate.module.weight.detach()
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1:], before[1:])
    assert count_trained(candidate) == 3 * 6 + 3 - 6


def test_an_anchor_is_the_same_as_a_penalty_on_the_distance(vectors: Scene) -> None:
    anchored = linear(vectors, groups=(Group("weight", anchor=0.7), Group()))
    charged = linear(vectors)
    initial = charged.module.weight.detach().clone()
    charged = replace(charged, penalty=lambda module: 0.35 * (module.weight - initial).square().sum())
    ends = [trainer(vectors).run(candidate) for candidate in (anchored, charged)]
    torch.testing.assert_close(ends[0].state["weight"], ends[1].state["weight"])
    free = trainer(vectors).run(linear(vectors))
    assert not torch.allclose(ends[0].state["weight"], free.state["weight"], atol=1e-3)


def test_a_group_sets_rate_and_decay_of_the_first_match_only(vectors: Scene) -> None:
    candidate = linear(vectors, groups=(Group("bias", lr=0.0, decay=0.0), Group("", lr=1.0)))
    before = candidate.module.bias.detach().clone()
    trainer(vectors).run(candidate)
    assert torch.equal(candidate.module.bias.detach(), before)


def test_what_is_not_trained_keeps_its_statistics_too() -> None:
    frozen, free = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    frozen.requires_grad_(False)
    module = nn.Sequential(frozen, free, nn.Dropout(0.5))
    set_modes(module)
    assert [part.training for part in module] == [False, True, True]
    module(torch.randn(8, 4) + 5)
    assert torch.equal(frozen.running_mean, torch.zeros(4))  # type: ignore[arg-type]
    assert not torch.equal(free.running_mean, torch.zeros(4))  # type: ignore[arg-type]


def test_every_example_comes_once_before_any_comes_twice(vectors: Scene) -> None:
    loop = trainer(vectors)
    n = len(vectors.labels)
    rows = torch.cat(list(loop._batches(5)))  # 5 batches of 16: two epochs of 40
    assert len(rows) == 80
    assert sorted(rows[:n].tolist()) == list(range(n))
    assert sorted(rows[n : 2 * n].tolist()) == list(range(n))


def test_a_batch_is_never_larger_than_the_train_split(vectors: Scene) -> None:
    loop = trainer(vectors, replace(RECIPE, batch=1000))
    assert all(len(rows) == len(vectors.labels) for rows in loop._batches(3))


def test_a_hopeless_trial_is_stopped_at_its_rung(vectors: Scene) -> None:
    loop = trainer(vectors, floors=((0.5, 2.0),))  # nobody reaches an accuracy of 2
    fitted = loop.run(linear(vectors))
    assert loop.pruned
    assert fitted.steps == 12
    assert "pruned" in fitted.stopped


def test_a_trial_that_reaches_its_floor_goes_on(vectors: Scene) -> None:
    loop = trainer(vectors, floors=((0.5, 0.0),))
    fitted = loop.run(linear(vectors))
    assert (loop.pruned, fitted.steps, fitted.stopped) == (False, 24, "")


def test_a_transfer_far_behind_the_baseline_is_stopped_and_says_by_how_much(vectors: Scene) -> None:
    loop = trainer(vectors, bars=((0.5, 1.8, 2.0), (0.75, 1.9, 2.5)))  # nobody reaches an accuracy of 2
    fitted = loop.run(linear(vectors))
    assert loop.pruned
    assert fitted.steps == 12
    best = max(rank for _, rank in fitted.curve)
    assert fitted.stopped == f"pruned: at 50% of its steps {best:.3g}, scratch had 2 at 50%"
    fair = trainer(vectors, bars=((0.5, -1.0, 2.0),))
    assert fair.run(linear(vectors)).steps == 24
    assert not fair.pruned


def test_what_is_told_of_the_baseline_is_in_the_metrics_own_direction() -> None:
    numbers = scene("vector", "regression")
    fitted = trainer(numbers, bars=((0.5, 0.0, -0.25),)).run(linear(numbers))
    best = max(rank for _, rank in fitted.curve)
    assert fitted.stopped == f"pruned: at 50% of its steps {-best:.3g}, scratch had 0.25 at 50%"


def test_a_trial_that_is_at_its_end_is_not_stopped_any_more(vectors: Scene) -> None:
    loop = trainer(vectors, replace(RECIPE, steps=1), floors=((0.5, 2.0),), bars=((0.5, 2.0, 2.0),))
    assert loop.run(linear(vectors)).stopped == ""
    assert not loop.pruned


def test_a_deadline_ends_training_with_what_there_is(vectors: Scene) -> None:
    fitted = trainer(vectors, deadline=time.monotonic() - 1).run(linear(vectors))
    assert fitted.steps == 2  # the first check of twelve
    assert "time" in fitted.stopped


def test_a_loss_that_is_not_finite_fails_the_trial_with_the_step(vectors: Scene) -> None:
    candidate = replace(linear(vectors), penalty=lambda module: module.weight.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match=r"nan at step 2 of 24"):
        trainer(vectors).run(candidate)


def test_outputs_that_are_not_finite_have_no_score(vectors: Scene) -> None:
    candidate = linear(vectors)
    with torch.no_grad():
        candidate.module.weight.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="not finite"):
        trainer(vectors).score(candidate)


def test_a_candidate_with_nothing_to_train_is_refused(vectors: Scene) -> None:
    candidate = linear(vectors)
    candidate.module.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train"):
        trainer(vectors).run(candidate)


def test_choose_keeps_the_best_state_and_its_label(vectors: Scene) -> None:
    candidate = linear(vectors)
    good = trainer(vectors).run(linear(vectors)).state
    zero = {name: torch.zeros_like(tensor) for name, tensor in good.items()}
    fitted = trainer(vectors).choose(candidate, [("zero", zero), ("good", good), ("again", good)])
    assert fitted.notes["chosen"] == "good"  # the earlier of two equals
    assert torch.equal(candidate.module.weight, good["weight"])


def test_choose_refuses_a_state_that_does_not_fit(vectors: Scene) -> None:
    with pytest.raises(ValueError, match="lacks: wieght"):
        trainer(vectors).choose(linear(vectors), [("typo", {"wieght": torch.zeros(3, 6)})])


def test_numbers_are_scored_in_their_own_units() -> None:
    tiny = scene("vector", "regression")
    candidate = Candidate(nn.Linear(6, 1), (Raw(),))
    with torch.no_grad():
        candidate.module.weight.zero_()
        candidate.module.bias.zero_()  # predicts the train split's mean
    score = trainer(tiny).score(candidate)
    assert score.value == pytest.approx(np.sqrt(np.mean((tiny.tune.labels - tiny.tune.center) ** 2)))
    assert score.rank == -score.value


def test_the_loss_breaks_ties_of_a_coarse_metric() -> None:
    target = Target(np.array([0, 1]), get_metric("accuracy", "classification"))
    sure = measure(np.array([[0.9, 0.1], [0.1, 0.9]]), target)
    unsure = measure(np.array([[0.6, 0.4], [0.4, 0.6]]), target)
    assert sure.rank == unsure.rank
    assert sure.beats(unsure)
    assert not unsure.beats(sure)
    assert sure.loss == pytest.approx(-math.log(0.9))


def test_several_runs_of_a_trial_share_its_steps_and_its_curve_and_see_other_batches(vectors: Scene) -> None:
    loop, candidate = trainer(vectors), linear(vectors)
    start = {name: tensor.clone() for name, tensor in candidate.module.state_dict().items()}
    runs = []
    for _ in range(3):
        candidate.module.load_state_dict(start)
        runs.append(loop.run(candidate, share=1 / 3))
    assert [fitted.steps for fitted in runs] == [RECIPE.steps // 3] * 3
    shares = [share for share, _ in runs[-1].curve]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len({fitted.state["weight"].sum().item() for fitted in runs}) == 3
    assert loop.run(candidate).curve[0][0] == 0.0  # a whole run stands alone


def test_a_later_run_of_a_trial_is_pruned_by_the_best_of_all_and_by_the_shares_of_the_whole(vectors: Scene) -> None:
    reached = trainer(vectors).run(linear(vectors), share=0.5).score.rank
    loop = trainer(vectors, floors=((0.7, reached),))
    for _ in range(2):  # the second one starts behind the floor that the first has reached
        assert not loop.run(linear(vectors), share=0.5).stopped
    hopeless = trainer(vectors, floors=((0.7, 2.0),))
    assert not hopeless.run(linear(vectors), share=0.5).stopped
    assert hopeless.run(linear(vectors), share=0.5).stopped
    assert hopeless.pruned


def test_an_objective_takes_the_place_of_the_tasks_loss_and_knows_the_rows(vectors: Scene) -> None:
    seen: list[int] = []

    def twice(outputs: Tensor, loss: Tensor, rows: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        expected = nn.functional.cross_entropy(outputs, vectors.labels[rows])
        torch.testing.assert_close(loss, expected)
        return loss * 0.0 + outputs.square().mean()

    fitted = trainer(vectors).run(linear(vectors, objective=twice))
    assert set(seen) == set(range(len(vectors.labels)))
    last = trainer(vectors).run(linear(vectors))
    assert not torch.equal(fitted.state["weight"], last.state["weight"])


def test_a_score_that_the_trainer_has_not_given_is_not_believed(vectors: Scene) -> None:
    candidate, ours = linear(vectors), trainer(vectors)
    fitted = ours.run(candidate)
    assert ours.verified(candidate, fitted) is fitted
    assert ours.verified(candidate, replace(fitted, notes={})).score is fitted.score
    boasted = replace(fitted, score=Score(1.0, 1.0, 0.0))
    assert ours.verified(candidate, boasted).score == fitted.score
    others = {name: torch.zeros_like(tensor) for name, tensor in fitted.state.items()}
    told = ours.verified(candidate, replace(fitted, state=others)).score
    assert told.loss == pytest.approx(math.log(vectors.problem.n_outputs), rel=1e-5)  # all classes alike


def test_what_another_trainer_has_scored_is_scored_again(vectors: Scene) -> None:
    candidate, other, ours = linear(vectors), trainer(vectors), trainer(vectors)
    fitted = other.run(candidate)
    assert ours.verified(candidate, fitted) is not fitted


def test_a_stage_may_hold_a_part_still_that_a_later_one_trains(vectors: Scene) -> None:
    torch.manual_seed(0)
    body, head = nn.Linear(6, 5), nn.Linear(5, vectors.problem.n_outputs)
    candidate = Candidate(nn.Sequential(OrderedDict(body=body, head=head)), (Raw(),))
    before, loop = body.weight.detach().clone(), trainer(vectors, replace(RECIPE, decay=0.1))
    first = loop.run(replace(candidate, groups=(Group("head"), Group(lr=0.0))), share=0.5)
    assert torch.equal(first.state["body.weight"], before)
    assert not torch.equal(first.state["head.weight"], trainer(vectors).run(candidate).state["head.weight"])
    assert not torch.equal(loop.run(candidate, share=0.5).state["body.weight"], before)
