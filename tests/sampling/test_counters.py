import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.sampling.counters import Stream, random_bits, uniforms

NUMBERS = st.integers(0, 2**63 - 1)


@given(seed=NUMBERS, epoch=NUMBERS, first=st.integers(0, 10**9), count=st.integers(1, 50))
def test_each_index_has_its_own_numbers_whatever_the_range(seed, epoch, first, count):
    block = random_bits(seed, epoch, stream=Stream.POSITIONS, first=first, count=count)
    single = [
        random_bits(seed, epoch, stream=Stream.POSITIONS, first=first + i, count=1)[0]
        for i in range(count)
    ]
    assert np.array_equal(block, np.stack(single))


@given(seed=NUMBERS, epoch=NUMBERS)
def test_streams_and_epochs_differ(seed, epoch):
    def draw(key, stream):
        return uniforms(seed, key, stream=stream, first=0, count=4)

    ours = draw(epoch, Stream.POSITIONS)
    assert not np.array_equal(ours, draw(epoch, Stream.AUGMENT))
    assert not np.array_equal(ours, draw(epoch + 1, Stream.POSITIONS))
    assert ours.min() >= 0
    assert ours.max() < 1
