"""The nightly run as an Airflow 3 DAG: ``ray job submit``, which needs no provider for Ray.

The generic one (astro-provider-ray) is discontinued. The worker needs the cluster's version of
``ray[default]``, a checkout of the repository, and a Ray cluster to submit to.
"""

from datetime import timedelta

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# A submission id can be used once. Airflow ends the shell with SIGTERM, which alone would leave the
# job running on the cluster; ``ray job stop`` lets it end cleanly.
SUBMIT = """
trap 'ray job stop "$SUBMISSION_ID"' TERM
ray job submit --submission-id "$SUBMISSION_ID" --working-dir . \
    --runtime-env jobs/deploy/runtime-env.yaml \
    -- python -m jobs.nightly jobs/deploy/nightly.yaml &
wait $!
"""

with DAG(
    dag_id="cvt_nightly",
    schedule="0 2 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,  # one run does everything new, however many nights were missed
    max_active_runs=1,
):
    BashOperator(
        task_id="nightly",
        bash_command=SUBMIT,
        cwd="/opt/cvt-batch",
        env={
            "RAY_API_SERVER_ADDRESS": "http://ray-head-svc:8265",
            "SUBMISSION_ID": "cvt-nightly-{{ ts_nodash }}-{{ ti.try_number }}",
        },
        append_env=True,
        execution_timeout=timedelta(hours=8),
        # ``ray job submit`` returns 1 for every failure; a retry after too many failed images would
        # find nothing left to do and hide them.
        retries=0,
    )
