"""A training that is watched from the driver."""

import logging
from concurrent.futures import Future
from unittest.mock import Mock

import pytest
from ray.exceptions import RpcError

from pipeline.stages.train import supervision


@pytest.mark.parametrize("error", [RpcError("unavailable"), RuntimeError("no head")])
def test_a_training_goes_on_while_nobody_can_say_where(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it ends, and ends with its own error."""
    caplog.set_level(logging.INFO, supervision.__name__)
    fitting: Future[None] = Future()

    def end() -> str:
        fitting.set_exception(KeyError("its own"))
        return "training 80 steps"

    news = Mock(side_effect=[error, lambda: None, end])
    monkeypatch.setattr(supervision, "_POLL_SECONDS", 0.0)
    whereabouts = Mock(news=lambda: news()())
    with pytest.raises(KeyError, match="its own"):
        supervision._watch(fitting, whereabouts)
    assert caplog.messages == ["training 80 steps"]
