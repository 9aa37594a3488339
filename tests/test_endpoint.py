"""Whom to ask: somebody's endpoint with its key, or our own server."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from helpers.serve import endpoint
from helpers.serve.client import ChatClient
from helpers.serve.endpoint import KEY, client_of, endpoint_client

URL = "http://127.0.0.1:9/v1"


def test_an_endpoint_of_others_is_asked_by_name_and_key(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY, "k")
    with endpoint_client(URL, "theirs", "tiny", tmp_path) as (client, weights):
        assert (client.base_url, client.model, weights) == (URL, "theirs", "")


@pytest.mark.parametrize(
    ("model", "key", "reason"), [(None, "k", "Which model at http"), ("theirs", "", f"{KEY} is not set")]
)
def test_what_is_missing_is_one_sentence(tmp_path, monkeypatch, model, key, reason):
    monkeypatch.setenv(KEY, key)
    with pytest.raises(ValueError, match=reason), endpoint_client(URL, model, "tiny", tmp_path):
        pass
    with pytest.raises(ValueError, match=reason):
        client_of(URL, model)


def test_a_key_that_is_nowhere_is_one_sentence_too(monkeypatch):
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ValueError, match=f"{KEY} is not set: it holds the key of {URL}"):
        client_of(URL, "theirs")


@pytest.mark.parametrize(("model", "served"), [(None, "base"), ("another", "another")])
def test_our_own_server_serves_the_model_or_the_base(tmp_path, monkeypatch, model, served):
    class Base:
        def __init__(self, name):
            self.path, self.sha256 = tmp_path / name, f"hash of {name}"

    class Server:
        base_url, api_key = URL, "own"

        def __init__(self, path, name, logs, **options):
            self.made = (path, name, logs, options)

        def __enter__(self):
            assert self.made == (tmp_path / served, "judge", tmp_path, {"max_model_len": 8192})
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(endpoint, "resolve_base_model", Base)
    monkeypatch.setattr(endpoint, "VLLMServer", Server)
    with endpoint_client("own", model, "base", tmp_path, max_model_len=8192) as (client, weights):
        assert (client.model, weights) == ("judge", f"hash of {served}")
        assert client._client.timeout >= 48 * 700 / 30, "48 answers of 700 tokens at 30 tokens a second"


def test_a_proxy_of_the_environment_is_asked_for_others_and_not_for_this_machine(monkeypatch):
    class Listed(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            data = b'{"object": "list", "data": [{"id": "%s", "object": "model"}]}' % self.path.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Listed) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{httpd.server_port}")
        whole = "http://models.example/v1"
        assert ChatClient(whole, "k", "m").models() == [f"{whole}/models"], "a proxy is sent the whole address"
        for host in ("127.0.0.1", "localhost", "0.0.0.0"):
            assert ChatClient(f"http://{host}:{httpd.server_port}/v1", "k", "m").models() == ["/v1/models"]
        httpd.shutdown()
