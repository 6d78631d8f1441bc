"""Each token's expert and its probability, and which layers may be asked for."""

import pytest
import torch

from llava_mole.analysis.routing import choices_of, experts_of, layers_of, places_of
from llava_mole.analysis.routing.choices import is_dense
from tests import tiny
from tests.analysis.routing import helpers


def test_choices_against_the_routers_scores():
    model = helpers.model()
    ids = torch.randint(3, 250, (2, 7), generator=torch.Generator().manual_seed(0))
    expected = helpers.slow_choices(model, input_ids=ids)
    found = choices_of(model, (2, 7))
    assert torch.equal(found.expert, expected)
    assert found.prob.shape == (2, 2, 7)
    assert bool((found.prob > 1 / 3).all())
    assert bool((found.prob <= 1).all())


def test_layers_are_the_decoders_own_numbers():
    model = tiny.random_mole(tiny.tiny_llava(num_hidden_layers=4), layers_to_transform=[1, 3])
    assert layers_of(model) == (1, 3)
    assert experts_of(model) == 3
    assert not is_dense(model)
    model(input_ids=torch.tensor([[5, 6]]))
    assert choices_of(model, (1, 2)).expert.shape == (2, 1, 2)


def test_places():
    assert places_of((1, 3, 4, 5), None) == [0, 1, 2, 3]
    assert places_of((1, 3, 4, 5), [5, 1, 5]) == [3, 0]
    with pytest.raises(ValueError, match="layer 2 has no experts; those that have: 1, 3 to 5"):
        places_of((1, 3, 4, 5), [1, 2])


def test_dense_routing_is_told():
    assert is_dense(tiny.random_mole(tiny.tiny_llava(), routing="dense"))
