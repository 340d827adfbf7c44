"""Starting Ray."""

import pytest
import ray

from pipeline.contract.errors import RunError
from pipeline.stages import ray_session as cluster


class TestStart:
    """A busy machine, on which Ray gives up after 30 seconds."""

    @pytest.fixture
    def failures(self, monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
        """What the next calls of ray.init raise."""
        waiting: list[Exception] = []

        def init(**options: object) -> None:
            if waiting:
                raise waiting.pop(0)

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "shutdown", lambda: None)
        return waiting

    def timeout(self) -> Exception:
        return Exception("The current node timed out during startup. This could happen because")

    def test_is_tried_again(self, failures: list[Exception]) -> None:
        failures += [self.timeout(), self.timeout()]
        cluster.start_ray("local", {})
        assert not failures

    def test_ends_in_one_line(self, failures: list[Exception]) -> None:
        failures += [self.timeout() for _ in range(9)]
        with pytest.raises(RunError, match=r"3 tries, the machine is too busy; start the same"):
            cluster.start_ray("local", {})

    def test_other_errors_are_not_tried_again(self, failures: list[Exception]) -> None:
        failures += [ValueError("no such address"), self.timeout()]
        with pytest.raises(ValueError, match="no such address"):
            cluster.start_ray("local", {})
        assert len(failures) == 1
