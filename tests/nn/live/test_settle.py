"""A candidate that is settled keeps its score whatever comes; all together they are what suppression gives."""

import numpy as np
import pytest

from backtal.nn.live.settle import Rule, Suppression
from backtal.segments.segments import nms, soft_nms


def stream(rng, rule, *, count=60, longest=10.0, patience=np.inf):
    """Candidates in order of time, settled while they come; all of them, and what was settled when."""
    middle = np.sort(rng.uniform(0, 80, count))
    start = middle - rng.uniform(0.1, longest / 2, count)
    rows = np.column_stack([start, middle + rng.uniform(0.1, longest / 2, count), rng.uniform(0.1, 1, count)])
    suppression, found = Suppression(rule, patience), []
    for index in range(count):
        suppression.add(rows[index : index + 1])
        found.append(suppression.settle(middle[index] - longest / 2))
    return rows, [*found, suppression.settle(np.inf)], suppression


def sorted_rows(rows):
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("seed", range(20))
def test_settled_one_by_one_equals_all_at_once(seed):
    rng = np.random.default_rng(seed)
    rows, found, suppression = stream(rng, Rule(0.2, 0.5, 0.5))
    kept, scores = soft_nms(rows[:, :2], rows[:, 2], 0.5, 0.001)
    whole = np.column_stack([rows[kept, :2], scores])[scores >= 0.2]
    np.testing.assert_allclose(sorted_rows(np.concatenate(found)), sorted_rows(whole), atol=1e-12)
    assert sum(map(len, found[:-1])) > 0
    assert suppression.forced == 0
    rows, found, _ = stream(rng, Rule(0.2, None, 0.3))
    kept = nms(rows[:, :2], rows[:, 2], 0.3)
    whole = rows[kept][rows[kept, 2] >= 0.2]
    np.testing.assert_allclose(sorted_rows(np.concatenate(found)), sorted_rows(whole), atol=1e-12)


def test_little_is_held_of_an_action_that_never_ends():
    rng, held, suppression = np.random.default_rng(0), [], Suppression(Rule(0.3, 0.5, 0.5), 10.0)
    for second in np.arange(0, 2000, 0.5):
        suppression.add(np.array([[second - rng.uniform(0, 5), second + rng.uniform(0, 5), rng.uniform(0.3, 1)]]))
        suppression.settle(second - 5)
        held.append(len(suppression.rows))
    assert max(held[2000:]) <= max(held[:2000]) + 5 < 100


def test_what_is_better_later_is_waited_for_and_no_longer_than_patience():
    rising = np.array([[n, n + 1.5, 0.3 + 0.01 * n] for n in range(60)])
    patient, hasty = Suppression(Rule(0.1, 0.5, 0.5), np.inf), Suppression(Rule(0.1, 0.5, 0.5), 5.0)
    late = {}
    for name, one in (("patient", patient), ("hasty", hasty)):
        for row in rising:
            one.add(row[None])
            for start in one.settle(row[0] + 1)[:, 0]:
                late.setdefault(name, []).append(row[0] - start)
    assert "patient" not in late
    assert max(late["hasty"]) <= 7
    assert hasty.forced > 0
