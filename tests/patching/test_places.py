"""Positions worth computing, against loops over rows and positions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from edgewise.patching.places import Places, narrow


@st.composite
def masks(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask `[batch, pos]`, some rows of which may be all False, and a fallback `[batch]`."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    mask = draw(st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=rows, max_size=rows))
    fallback = draw(st.lists(st.integers(0, length - 1), min_size=rows, max_size=rows))
    return torch.tensor(mask), torch.tensor(fallback)


def chosen(mask: torch.Tensor, fallback: torch.Tensor) -> list[list[int]]:
    """The positions of each row."""
    rows = [[position for position, there in enumerate(row) if there] for row in mask.tolist()]
    return [row or [int(other)] for row, other in zip(rows, fallback, strict=True)]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@given(masks())
def test_places_are_the_true_positions_of_each_row_or_its_fallback(drawn):
    mask, fallback = drawn
    given_mask = mask.clone()
    places, wanted = Places.of(mask, fallback), chosen(mask, fallback)
    assert torch.equal(mask, given_mask), "the mask given is not changed"
    assert [row.nonzero()[:, 0].tolist() for row in places.mask] == wanted
    width = max(map(len, wanted))
    assert places.width == width
    if width == mask.shape[1]:
        assert places.index is None
    else:
        assert places.index.tolist() == [row + [row[-1]] * (width - len(row)) for row in wanted]


@given(masks(), masks())
def test_places_are_equal_if_their_positions_are_and_the_rows_that_were_meant(one, other):
    places, others = Places.of(*one), Places.of(*other)
    assert places == Places.of(*one)
    alike = chosen(*one) == chosen(*other) and one[0].shape == other[0].shape
    meant = alike and torch.equal(one[0].any(dim=1), other[0].any(dim=1))
    assert (places == others) == meant
    assert (Places.of(places.mask, one[1]) == places) == bool(one[0].any(dim=1).all())
    assert places != "something else"


@given(masks())
def test_taking_gives_what_stands_at_the_places(drawn):
    mask, fallback = drawn
    places = Places.of(mask, fallback)
    x = random(*mask.shape, 3)
    taken = places.take(x)
    assert taken.shape == (len(mask), places.width, 3)
    if places.width < mask.shape[1]:
        for row, positions in enumerate(chosen(mask, fallback)):
            for place in range(places.width):
                assert torch.equal(taken[row, place], x[row, positions[min(place, len(positions) - 1)]])
    else:
        assert taken is x


@given(masks(), st.integers(1, 3))
def test_putting_changes_the_places_and_nothing_else(drawn, candidates):
    mask, fallback = drawn
    places = Places.of(mask, fallback)
    full, new = random(*mask.shape, 2), random(candidates, *mask.shape, 2)
    before = full.clone()
    put = places.put(full[None], torch.stack([places.take(one) for one in new]), places.index)
    assert torch.equal(full, before)
    assert put.shape == new.shape
    for candidate in range(candidates):
        for row, positions in enumerate(chosen(mask, fallback)):
            for position in range(mask.shape[1]):
                if not mask[row].any():  # the place that stands there is nobody's
                    assert torch.equal(put[candidate, row, position], full[row, position])
                elif position in positions:
                    assert torch.equal(put[candidate, row, position], new[candidate, row, position])
                elif places.width < mask.shape[1]:  # where a row needs them all, all rows get them all
                    assert torch.equal(put[candidate, row, position], full[row, position])


@given(masks(), st.data())
def test_narrowing_takes_places_among_wider_ones(drawn, data):
    mask, fallback = drawn
    fewer = Places.of(mask, fallback)
    length = mask.shape[1]
    more = data.draw(
        st.lists(st.lists(st.booleans(), min_size=length, max_size=length), min_size=len(mask), max_size=len(mask))
    )
    wider = Places.of(fewer.mask | torch.tensor(more), fallback)
    x = random(2, *mask.shape, 3)
    in_wider = torch.stack([wider.take(one) for one in x])
    found = narrow(in_wider, fewer.within(wider))
    assert found.shape == (2, len(mask), fewer.width, 3)
    for candidate in range(2):
        assert torch.equal(found[candidate], fewer.take(x[candidate]))


def test_the_same_places_are_not_copied():
    places = Places.of(torch.tensor([[True, False, True], [False, True, False]]), torch.tensor([0, 0]))
    again = Places.of(places.mask.clone(), torch.tensor([2, 2]))
    assert places.within(again) is None
    x = random(2, 2, 2, 3)
    assert narrow(x, None) is x
