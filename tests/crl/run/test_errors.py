"""The words for what is wrong."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from crl.run.errors import explain, nearest


def test_nearest():
    assert nearest("colour", ["shape", "color", "count"]) == "did you mean 'color'?"
    assert nearest("xyz", ["shape", "color"]) == "known: shape, color"


class Example(BaseModel):
    name: str = "x"
    sizes: list[int] = []

    @field_validator("sizes")
    @classmethod
    def _ascending(cls, sizes):
        if sizes != sorted(sizes):
            raise ValueError("sizes must\nascend")
        return sizes


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 7}, "name: must be a text, not 7; put it in quotes"),
        ({"sizes": [1, "many"]}, "sizes.1: must be a whole number, not 'many'"),
        ({"sizes": "many"}, "sizes: must be a list like [a, b], not 'many'"),
        ({"sizes": [2, 1]}, "sizes: sizes must ascend"),
        ([], "must hold `key: value` lines, not []"),
    ],
)
def test_explain(values, message):
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(values)
    assert explain(caught.value).startswith(message)
    assert "\n" not in explain(caught.value)
