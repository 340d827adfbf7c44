"""The deployment files say what the code accepts, and no more than they should."""

import ast
import re
import shlex
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.runtime_env import RuntimeEnv

from jobs.cli import command as cli
from jobs.deploy import __main__ as deploy
from pipeline.runs.python.config import read_config, spec_from_config
from pipeline.storage.filesystems import WorkerEnvironment

DEPLOY = Path(__file__).resolve().parents[2] / "jobs" / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
MANIFESTS = ("rayjob.yaml", "raycronjob.yaml", "cronjob.yaml", "cronjob-submit.yaml")
COMMAND = re.compile(r"python -m (jobs\.\w+)((?: [\w./-]+)*)")


def manifest(name: str) -> dict[str, Any]:
    folder = KUBERNETES if name in MANIFESTS else DEPLOY
    content: dict[str, Any] = yaml.safe_load((folder / name).read_text())
    return content


def values(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every key of a tree of mappings and lists with its value."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from values(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from values(value)


def commands(name: str) -> list[str]:
    """The shell commands of a file that start a job of ours."""
    if name in MANIFESTS:
        found = dict(values(manifest(name)))
        return [found.get("entrypoint") or shlex.join(found["command"])]
    text = (DEPLOY / name).read_text()
    return [line.strip() for line in text.splitlines() if "python -m jobs." in line]


@pytest.mark.parametrize("name", [*MANIFESTS, "crontab", "airflow_dag.py", "README.md"])
def test_the_command_is_one_that_the_job_accepts(name: str) -> None:
    found = commands(name)
    assert found
    for command in found:
        match = COMMAND.search(command)
        assert match, command
        arguments = import_module(match[1]).build_parser().parse_args(match[2].split())
        assert arguments.config.name == "nightly.yaml"


def test_the_nightly_configuration_is_valid() -> None:
    path = DEPLOY / "nightly.yaml"
    assert spec_from_config(read_config(path), path.name).inputs.uris


@pytest.mark.parametrize("name", ["cronjob.yaml", "cronjob-submit.yaml"])
def test_nights_do_not_overlap(name: str) -> None:
    assert manifest(name)["spec"]["concurrencyPolicy"] == "Forbid"


def test_one_job_or_one_every_night() -> None:
    once, nightly = manifest("rayjob.yaml"), manifest("raycronjob.yaml")
    assert nightly["spec"]["jobTemplate"] == once["spec"]


def test_only_what_can_be_continued_is_retried() -> None:
    """Exit codes 2 and 3 end the Kubernetes job; where Ray makes them all 1, nothing is retried."""
    job = manifest("cronjob.yaml")["spec"]["jobTemplate"]["spec"]
    rules = {rule["action"]: rule for rule in job["podFailurePolicy"]["rules"]}
    assert rules["FailJob"]["onExitCodes"] == {"operator": "In", "values": [2, 3]}
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert manifest("cronjob-submit.yaml")["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    spec = manifest("rayjob.yaml")["spec"]
    assert (spec["backoffLimit"], spec["submitterConfig"]["backoffLimit"]) == (0, 0)


@pytest.mark.parametrize("name", ["rayjob.yaml", "cronjob.yaml"])
def test_every_pod_of_ray_has_shared_memory_and_credentials(name: str) -> None:
    pods = [value["spec"] for key, value in values(manifest(name)) if key == "template"]
    for pod in pods:
        (container,) = pod["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "cvt-storage"}}]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        (shm,) = (volume for volume in pod["volumes"] if volume["name"] == "shm")
        assert shm["emptyDir"]["medium"] == "Memory"
    assert len(pods) == {"rayjob.yaml": 2, "cronjob.yaml": 1}[name]


@pytest.mark.parametrize(
    "path",
    sorted(filter(Path.is_file, (*DEPLOY.iterdir(), *KUBERNETES.iterdir()))),
    ids=lambda p: p.name,
)
def test_no_secret_stands_in_a_file(path: Path) -> None:
    assigned = re.findall(
        r"\w*(?:SECRET|PASSWORD|TOKEN|ACCESS_KEY)\w*\s*[:=]\s*(.*)", path.read_text()
    )
    assert all(re.match(r"\$\{\w+\}$|\.\.\.", value) for value in assigned), assigned


def test_the_runtime_environment_takes_names_from_the_nodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = RuntimeEnv(**manifest("runtime-env.yaml"))  # Ray checks the fields
    for name, value in environment["env_vars"].items():
        assert value == f"${{{name}}}"
        monkeypatch.setenv(name, "set")
    # The driver hands on to its workers what it gets.
    assert set(environment["env_vars"]) <= set(WorkerEnvironment.capture().variables)


def test_the_dag_is_python_and_runs_once_at_a_time() -> None:
    tree = ast.parse((DEPLOY / "airflow_dag.py").read_text())
    calls = {
        node.func.id: {keyword.arg: keyword.value for keyword in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert ast.literal_eval(calls["DAG"]["max_active_runs"]) == 1
    assert ast.literal_eval(calls["DAG"]["catchup"]) is False
    assert ast.literal_eval(calls["BashOperator"]["retries"]) == 0


def test_the_crontab_has_one_line_for_one_user() -> None:
    lines = (DEPLOY / "crontab").read_text().splitlines()
    (line,) = (line for line in lines if re.match(r"[\d*]", line))
    assert re.match(r"\d+ \d+ \* \* \* cvt \S", line)
    assert "%" not in line, "cron reads it as a line break"


class TestWritten:
    """``cvt-deploy --write``: the same files, for a directory without a checkout around it."""

    def write(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
        monkeypatch.setattr(sys, "argv", ["cvt-deploy", "--write", str(directory)])
        monkeypatch.setattr(cli, "_log_to_stderr", lambda *_: None)
        monkeypatch.setattr(cli, "_interrupt_on_sigterm", threading.Event)
        return deploy.main()

    def test_names_what_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.write(tmp_path, monkeypatch) == 0
        manifests = {f"kubernetes/{name}" for name in MANIFESTS}
        alone = {"README.md", "airflow_dag.py", "crontab", "nightly.yaml", "runtime-env.yaml"}
        paths = list(filter(Path.is_file, tmp_path.rglob("*")))
        names = {path.relative_to(tmp_path).as_posix() for path in paths}
        assert names == manifests | alone | {"wheel.Dockerfile"}
        for path in paths:
            text = path.read_text()
            assert "jobs/deploy" not in text
            assert "](../" not in text
            for named in re.findall(r"[\w/-]*(?:nightly|runtime-env|job|submit)\.yaml", text):
                assert named.startswith("/etc/") or named in names or f"kubernetes/{named}" in names

    def test_overwrites_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "nightly.yaml").write_text("mine")
        assert self.write(tmp_path, monkeypatch) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["nightly.yaml"]
        assert "nightly.yaml is there already; choose another" in capsys.readouterr().err

    def test_the_image_of_a_wheel_has_what_jobs_name(self) -> None:
        copied = re.findall(r"^COPY \S+ (.*) \S+$", (DEPLOY / "wheel.Dockerfile").read_text(), re.M)
        assert copied == ["nightly.yaml runtime-env.yaml cvt_batch-*.whl"]


def test_the_image_copies_what_there_is() -> None:
    copied = re.findall(r"^COPY \S+ (.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    repository = DEPLOY.parents[1]
    sources = [source for line in copied for source in line.split()]
    assert {"cvt", "pipeline", "jobs"} < set(sources)
    assert all((repository / source).exists() for source in sources)
