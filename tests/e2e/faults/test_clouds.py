"""Kills of runs on Azure and Google: nothing is lost, nothing repeated."""

import sys

import pytest

from tests.support.outputs.found import check_no_open_run_is_visible, find, parts
from tests.support.processes.scenes import Scene, computed_twice

pytestmark = pytest.mark.ray

DYING = """
import os, sys
from pipeline.storage.objects.filesystem import ObjectFileSystem

copy = ObjectFileSystem.cp_file

def die_after_it(self, source, target, **options):
    copy(self, source, target, **options)
    os.kill(os.getpid(), 9)

ObjectFileSystem.cp_file = die_after_it
from jobs.classify import main
sys.exit(main())
"""
"""The command, killed in mid-publish: after its first copy, before what was copied is removed."""


@pytest.mark.slow
def test_kills_in_mid_run_and_in_mid_publish(on_cloud: Scene) -> None:
    first = on_cloud.start()
    on_cloud.until_parts(first, 1)
    first.kill()
    check_no_open_run_is_visible(on_cloud.output)
    committed = len(parts(on_cloud.output))
    assert committed

    command = on_cloud.arguments
    on_cloud.arguments = [sys.executable, "-c", DYING, *command[3:]]
    code, log = on_cloud.start().wait()
    assert code == -9, log
    assert find(on_cloud.output, "data/"), "a copy was made"
    assert find(on_cloud.output, "_open/.*/publish/data/"), "and its source is still there"
    check_no_open_run_is_visible(on_cloud.output)

    on_cloud.arguments = command
    manifest = on_cloud.finish()
    assert manifest["attempts"] == 2, "the third start only publishes"
    assert manifest["plan"]["finished"] >= 256 * committed
    assert computed_twice(manifest) == 0
