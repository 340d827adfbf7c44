import pytest

from jobs.bench.ceilings.verdict import Ceilings
from jobs.bench.measure.rates import curve_of, steady_rate, time_of


def test_shared_cores_add_their_times() -> None:
    ceilings = Ceilings(decode=400, model=20, decode_cores=2)
    # 5 ms and 100 ms of core time per image on two cores: 2 / 0.105 s.
    assert ceilings.expected == pytest.approx(2 / (2 / 400 + 2 / 20))
    assert ceilings.expected == pytest.approx(19.05, abs=0.01)


def test_with_gpus_the_slower_stage_decides() -> None:
    assert Ceilings(decode=400, model=3000, decode_cores=8, gpus=1).expected == 400
    assert Ceilings(decode=4000, model=3000, decode_cores=8, gpus=1).expected == 3000


@pytest.mark.parametrize(
    ("ceilings", "sentence"),
    [
        pytest.param(
            Ceilings(decode=400, model=3000, decode_cores=8, gpus=1),
            "decode limits: 400 of the 3000 images/s of the model; "
            "8 more cores would double throughput",
            id="decode beside a GPU",
        ),
        pytest.param(
            Ceilings(decode=400, model=600, decode_cores=8, gpus=1),
            "decode limits: 400 of the 600 images/s of the model; "
            "4 more cores would raise throughput by 50%, until the other stage limits",
            id="decode, but not by far",
        ),
        pytest.param(
            Ceilings(decode=9000, model=3000, decode_cores=64, gpus=2),
            "the model limits: 3000 of the 9000 images/s of decode; "
            "2 more GPUs would double throughput",
            id="GPUs",
        ),
        pytest.param(
            Ceilings(decode=400, model=20, decode_cores=2, decode_cpu=0.005, model_cpu=0.095),
            "the model limits: 95% of the 100.0 ms of CPU time per image; "
            "2 more cores would double throughput, "
            "and a GPU would raise it up to the 400 images/s that decode allows",
            id="the model on CPUs",
        ),
        pytest.param(
            Ceilings(decode=100, model=400, decode_cores=1, decode_cpu=0.01, model_cpu=0.0025),
            "decode limits: 80% of the 12.5 ms of CPU time per image; "
            "1 more core would double throughput",
            id="decode on CPUs",
        ),
    ],
)
def test_the_bottleneck_has_its_lever(ceilings: Ceilings, sentence: str) -> None:
    assert ceilings.bottleneck() == sentence


def test_a_steady_rate_leaves_the_ends_out() -> None:
    # A minute until the first image, then 10 a second, then a straggler.
    curve = [(60 + second, 10.0 * second) for second in range(101)]
    assert steady_rate([*curve, (500.0, 1001.0)]) == pytest.approx(10)


def test_a_run_too_short_has_no_steady_rate() -> None:
    assert steady_rate([]) is None
    assert steady_rate([(0, 0), (1, 50), (2, 100)]) is None


def test_batches_become_a_curve() -> None:
    curve = curve_of([(2.0, 8), (1.0, 4), (3.0, 1)])
    assert curve == [(1.0, 4), (2.0, 12), (3.0, 13)]
    assert time_of(curve, 5) == 2.0
