"""Where a fault stands in its file."""

import pytest
from evermill._fault import argument_at

TEXT = """\
@task(retries=1)
def first():
    pass

second = task(
    name="größe", retires=2,
)
nested = dag(order=key(group=1), group=2)
"""


@pytest.mark.parametrize(
    "line, option, place",
    [
        (1, "retries", (1, 7)),
        (5, "retires", (6, 19)),
        (8, "order", (8, 14)),
        (1, "order", None),
    ],
)
def test_an_argument_is_found_where_it_stands_in_characters(line, option, place):
    assert argument_at(TEXT, line, option) == place
