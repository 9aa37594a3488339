"""Whom to ask: somebody's endpoint with its key, or our own server."""

import pytest

from helpers.serve import endpoint
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
