"""Token buckets: as many a minute as allowed, refilled evenly, and bounded memory whoever comes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.serving.security.exchange import household
from coterie.serving.security.rates import Buckets, whole_seconds


def test_a_minutes_worth_at_once_and_then_evenly():
    buckets = Buckets(60)
    assert all(buckets.take("a", 100.0) == 0 for _ in range(60))
    assert buckets.take("a", 100.0) == pytest.approx(1.0)
    assert buckets.take("a", 100.5) == pytest.approx(0.5)
    assert buckets.wait("a", 100.5) == pytest.approx(0.5)
    assert buckets.take("a", 101.0) == 0
    assert buckets.take("a", 101.0) > 0
    assert all(buckets.take("a", 1000.0) == 0 for _ in range(60))


def test_one_does_not_pay_for_another():
    buckets = Buckets(1)
    assert buckets.take("a", 0.0) == 0
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0


def test_a_million_addresses_take_no_more_memory_than_the_bound():
    buckets = Buckets(10, most=1000)
    for number in range(100_000):
        buckets.take(f"2001:db8::{number:x}", number / 1000)
        assert len(buckets) <= 1000


def test_who_comes_often_is_not_forgotten_for_those_who_came_once():
    buckets = Buckets(2, most=10)
    assert buckets.take("often", 0.0) == 0
    assert buckets.take("often", 0.0) == 0
    for number in range(9):
        buckets.take(f"once {number}", 0.0)
    assert buckets.take("often", 0.0) > 0


@given(st.integers(1, 50), st.lists(st.floats(0, 20), max_size=300))
def test_never_more_than_a_bucket_and_its_refill(per_minute, pauses):
    buckets, now, taken = Buckets(per_minute), 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("a", now)
        taken += wait == 0
        assert taken <= per_minute + now * per_minute / 60 + 1e-6
        assert wait == 0 or buckets.wait("a", now + wait + 1e-6) == 0


def test_a_line_with_many_addresses_is_one():
    assert household("192.0.2.7") == "192.0.2.7"
    assert household("::ffff:192.0.2.7") == "192.0.2.7"
    assert household("2001:db8:1:2:aaaa::1") == household("2001:db8:1:2:bbbb::9") == "2001:db8:1:2::/64"
    assert household("2001:db8:1:3::1") != household("2001:db8:1:2::1")
    assert household("unknown") == "unknown"


def test_retry_after_is_whole_seconds_and_never_none():
    assert [whole_seconds(wait) for wait in (0.001, 1.0, 1.2)] == [1, 1, 2]
