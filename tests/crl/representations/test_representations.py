"""A representation is identified by its file; its name is the same string everywhere."""

import numpy as np
import pytest
from pydantic import TypeAdapter

import crl.representations as module
from crl.projection import ConditionalProjection, l2, single_vector
from crl.representations import Representations, make_representation, names, represent
from crl.representations.posterior import Representation as Posterior
from crl.run.errors import UserError

IMAGE, TEXT = (
    l2(np.random.default_rng(0).normal(size=(9, 6))),
    l2(np.random.default_rng(1).normal(size=(4, 6))),
)


def test_represent_is_the_transformer_of_that_name():
    assert np.array_equal(
        represent("paper", IMAGE, TEXT), ConditionalProjection(TEXT).fit_transform(IMAGE)
    )
    sharp = Posterior(TEXT, sharpness=2).fit_transform(IMAGE)
    assert np.array_equal(represent("posterior", IMAGE, TEXT, sharpness=2, of_another=1), sharp)
    assert np.array_equal(represent("universal", IMAGE, TEXT), IMAGE)
    queries = l2(np.random.default_rng(2).normal(size=(9, 3, 6)))
    assert np.array_equal(represent("universal", queries, TEXT), single_vector(queries))


def test_several_stand_side_by_side():
    both = represent("paper+posterior", IMAGE, TEXT)
    parts = [represent(name, IMAGE, TEXT) for name in ("paper", "posterior")]
    assert np.allclose(both, np.concatenate(parts, axis=1) / np.sqrt(2))


@pytest.mark.parametrize("name", names())
def test_every_representation_keeps_the_contract(name):
    transformer = make_representation(name, TEXT, others=[TEXT[:2]])
    once = transformer.fit_transform(IMAGE, np.arange(9) % 3)
    np.testing.assert_allclose(once, transformer.transform(IMAGE), atol=1e-12)
    rows = transformer.transform(IMAGE)
    assert len(rows) == len(IMAGE) and np.allclose(np.linalg.norm(rows, axis=1), 1)
    assert np.allclose(transformer.transform(IMAGE[:2]), rows[:2])


def test_a_new_representation_is_one_file_and_no_edit_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "mirrored.py").write_text(
        "from crl.projection import ConditionalProjection\n"
        "class Representation(ConditionalProjection):\n"
        "    def _scaled(self, r):\n"
        "        return -super()._scaled(r)\n"
    )
    (tmp_path / "empty.py").write_text("")
    for lacks in ("transform", "fit_transform", "supervision"):
        has = {"supervision": "supervision = 'none'", "transform": "transform = print"}
        has["fit_transform"] = "fit_transform = print"
        has = "; ".join(["fit = print", *(text for name, text in has.items() if name != lacks)])
        (tmp_path / f"no_{lacks}.py").write_text(f"class Representation: {has}\n")
    monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path)])
    assert np.array_equal(represent("mirrored", IMAGE, TEXT), -represent("paper", IMAGE, TEXT))
    assert TypeAdapter(Representations).validate_python("mirrored") == ["mirrored"]
    with pytest.raises(UserError, match=r"empty\.py defines no class Representation"):
        represent("empty", IMAGE, TEXT)
    for lacks in ("transform", "fit_transform", "supervision"):
        with pytest.raises(UserError, match=rf"no_{lacks}\.py: its class .* has no '{lacks}'"):
            represent(f"no_{lacks}", IMAGE, TEXT)


def test_an_unknown_name_from_python_is_one_clear_error():
    for name in ("posteriour", "paper+posteriour"):
        with pytest.raises(ValueError, match=r"'posteriour'; did you mean 'posterior'\?"):
            represent(name, IMAGE, TEXT)
