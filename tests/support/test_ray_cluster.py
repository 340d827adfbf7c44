from pathlib import Path

from tests.support.ray_cluster import RayCluster

SCRIPT = """
import sys
import ray

ray.init()
print("cpus:", ray.cluster_resources()["CPU"])
sys.exit(3)
"""


def test_job_reports_the_exit_code_of_its_driver(ray_cluster: RayCluster, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(SCRIPT)
    job = ray_cluster.submit("python", "main.py", working_dir=tmp_path)
    assert "cpus: 4.0" in job.output
    # Ray's command turns every failure into 1; the entry point's own code is in the job's details.
    assert (job.returncode, job.driver_exit_code) == (1, 3), job.output
