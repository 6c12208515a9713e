"""Places for requests, and the time after which one that was turned away should come again."""

import pytest

from sed_trt.serve.admission import Admission
from sed_trt.serve.http_errors import BusyError


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_full_admission_turns_away() -> None:
    rejected: list[int] = []
    admission = Admission("full", 2, lambda: rejected.append(1))
    with admission.place(), admission.place():
        assert admission.taken == 2
        with pytest.raises(BusyError, match="full; try again in 1 s") as caught, admission.place():
            pytest.fail("there was a place")
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "1"})
    assert len(rejected) == 1
    assert admission.taken == 0


def test_a_place_is_given_back_after_an_error() -> None:
    admission = Admission("full", 1, lambda: None)
    with pytest.raises(ValueError, match="wrong"), admission.place():
        raise ValueError("wrong")
    with admission.place():
        assert admission.taken == 1


@pytest.mark.parametrize(("seconds", "advice"), [(0.2, 1), (7.5, 8), (1000, 60)])
def test_the_advice_is_what_requests_take(seconds: float, advice: int) -> None:
    clock = Clock()
    admission = Admission("full", 1, lambda: None, clock)
    for _ in range(3):
        with admission.place():
            clock.now += seconds
    assert admission.retry_after_s == advice


def test_requests_that_fail_do_not_count() -> None:
    clock = Clock()
    admission = Admission("full", 1, lambda: None, clock)
    with pytest.raises(ValueError), admission.place():
        clock.now += 30
        raise ValueError
    assert admission.retry_after_s == 1
