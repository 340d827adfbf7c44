"""Whom an https server has to convince."""

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

import pipeline.storage.retry
import pipeline.storage.web.http
from pipeline.sources.fetch import fetch_items
from pipeline.sources.formats.item import Item, ReadOptions
from tests.support.inputs.fetching import MIB, code, work
from tests.support.servers.web_server import Answer, serve


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes the certificates")
class TestCertificate:
    """Of https servers, which nobody but SSL_CERT_FILE vouches for."""

    def certificate(self, path: Path, names: str) -> ssl.SSLContext:
        """A self-signed certificate, and what serves under it."""
        command = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
        arguments = ["-subj", "/CN=test", "-addext", f"subjectAltName={names}", "-out", str(path)]
        key = path.with_suffix(".key")
        subprocess.run(
            [*command.split(), *arguments, "-keyout", str(key)], check=True, capture_output=True
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, key)
        return context

    def row(self, url: str) -> Item:
        pipeline.storage.web.http._pool.cache_clear()  # a process reads the variable once
        options = ReadOptions(allow_private_urls=True)
        (item,) = fetch_items(work({"uri": url}), MIB, options)
        pipeline.storage.web.http._pool.cache_clear()
        return item

    def test_decides(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        right = self.certificate(tmp_path / "right.pem", "DNS:localhost")
        self.certificate(tmp_path / "other.pem", "DNS:localhost")
        with serve(right) as web:
            web.answers["/x"] = [Answer(body=b"x")]
            url = web.url("/x", "localhost")
            unknown = self.row(url)
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
            other = self.row(url)
            for item in (unknown, other):
                assert code(item) == "url_refused"
                assert "localhost is not trusted (self-signed certificate)" in str(item.error)
            assert not web.asked
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "right.pem"))
            assert self.row(url).data == b"x"

    def test_behind_one_a_try_ends_in_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However steadily bytes trickle in."""
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        monkeypatch.setattr(pipeline.storage.web.http, "TOTAL_SECONDS", 1)
        with serve(self.certificate(tmp_path / "cert.pem", "DNS:localhost")) as web:
            web.answers["/x"] = [Answer(body=b"x" * 1000, seconds_per_byte=0.05)]
            assert code(self.row(web.url("/x", "localhost"))) == "timeout"
            assert web.count("/x") == 1

    def test_is_for_one_host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with serve(self.certificate(tmp_path / "cert.pem", "DNS:elsewhere.example")) as web:
            item = self.row(web.url("/x", "localhost"))
            assert code(item) == "url_refused"
            assert "Hostname mismatch" in str(item.error)
            assert not web.asked
