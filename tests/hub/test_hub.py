"""Names, the Hub's protocol and its troubles, against a server on loopback."""

import dataclasses
import importlib
import json
import re
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, running_hub

from backtal import BackTALModel, CheckpointError, FeatureSpec, ModelConfig
from backtal.hub import hub as hub_module

CONFIG = ModelConfig(feature_dim=6, labels=("jump", "run"), hidden_dim=64, filter_dim=4, embedding_dim=4)
VARIABLES = (
    "HF_TOKEN",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_CACHE",
    "http_proxy",
    "HTTP_PROXY",
    "all_proxy",
)


@pytest.fixture(scope="module")
def server():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def huggingface(tmp_path_factory):
    """`huggingface(name=value, ...)` imports huggingface_hub as with these variables, short of patience."""
    original = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "huggingface_hub"}
    home = str(tmp_path_factory.mktemp("home"))
    now: dict[str, str] = {}
    patch = pytest.MonkeyPatch()
    for name in VARIABLES:
        patch.delenv(name, raising=False)

    def enter(**changes: str) -> None:
        settings = {"HF_HOME": home, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"} | changes
        if settings == now:
            return
        forget()
        for name in now.keys() - settings.keys():
            patch.delenv(name)
        for name, value in settings.items():
            patch.setenv(name, value)
        now.clear()
        now.update(settings)
        constants = importlib.import_module("huggingface_hub.constants")
        constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.3
        constants.DOWNLOAD_CHUNK_SIZE = 500
        importlib.import_module("huggingface_hub.file_download")._ETAG_RETRY_TIMEOUT = 0.3

    def forget() -> None:
        if "huggingface_hub" in sys.modules:
            sys.modules["huggingface_hub"].close_session()
        for name in [name for name in sys.modules if name.split(".")[0] == "huggingface_hub"]:
            del sys.modules[name]

    yield enter
    forget()
    patch.undo()
    sys.modules.update(original)


@pytest.fixture
def hub(server, huggingface, capfd, monkeypatch):
    """The server, with a client for it; nothing may be printed on stdout."""
    server.reset()
    huggingface(HF_ENDPOINT=server.url)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between retries
    yield server
    assert capfd.readouterr().out == ""


@pytest.fixture
def offline(hub, huggingface):
    """`offline()` continues without network, with the same cache."""
    return lambda: huggingface(HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")


def load(name, **options) -> float:
    """The value that tells one test checkpoint from another."""
    return BackTALModel.from_pretrained(name, **options).classifier.weight[0, 0, 0].item()


def error(name, **options) -> str:
    """The message of the CheckpointError that loading raises, with nothing of the HTTP client behind it."""
    with pytest.raises(CheckpointError) as caught:
        load(name, **options)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


@pytest.fixture
def files(tmp_path):
    """A checkpoint's files; `files(value)` fills the classifier with a value, to tell one from another."""

    def make(value: float = 1.0, **changes) -> dict[str, bytes]:
        model = BackTALModel(dataclasses.replace(CONFIG, **changes))
        model.classifier.weight.data.fill_(value)
        model.save_pretrained(tmp_path / "made")
        return {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}

    return make


def test_download_then_cache_then_offline(hub, files, offline):
    commit = hub.add("me/first", files(2.0))
    assert load("me/first") == 2
    assert [r.split()[0] for r in hub.requests if "config" in r] == ["HEAD", "GET"]
    assert [r.split()[0] for r in hub.requests if "safetensors" in r] == ["HEAD", "GET"]
    hub.requests.clear()
    assert load("me/first") == 2
    assert [r.split()[0] for r in hub.requests] == ["HEAD"]
    hub.requests.clear()
    assert load(f"me/first@{commit}") == load("me/first", revision=commit) == 2
    assert load("me/first", local_files_only=True) == 2
    offline()
    assert load("me/first") == 2
    assert hub.requests == []


def test_offline_and_not_cached(hub, files, offline):
    hub.add("me/unseen", files())
    expected = "me/unseen: config.json: not in the cache, and requests are off"
    assert expected in error("me/unseen", local_files_only=True)
    offline()
    assert expected in error("me/unseen")
    assert hub.requests == []


def test_the_cache_can_be_elsewhere(hub, files, tmp_path):
    hub.add("me/elsewhere", files())
    load("me/elsewhere", cache_dir=tmp_path / "cache")
    assert (tmp_path / "cache" / "models--me--elsewhere").is_dir()
    assert "not in the cache" in error("me/elsewhere", local_files_only=True)


def test_revisions_are_pinned(hub, files, monkeypatch):
    old = hub.add("me/moving", files(1.0))
    hub.add("me/moving", files(2.0))
    assert load("me/moving", revision=old) == load(f"me/moving@{old}") == 1
    assert load("me/moving") == load("me/moving@main") == 2
    assert "me/moving@v9: config.json: no such revision" in error("me/moving@v9")
    assert "no such revision" in error("me/moving@main/../../x")
    assert "revision='v9' was given too" in error(f"me/moving@{old}", revision="v9")
    monkeypatch.setitem(hub_module.PUBLISHED, "hacs", ("me/moving", old))
    assert load("hacs") == 1
    assert load("hacs", revision="main") == 2


def test_both_files_are_of_one_commit(hub, files):
    """A push between the two downloads changes nothing: the second asks for the commit of the first."""
    commit = hub.add("me/racing", files())
    load("me/racing")
    assert {r.split("/resolve/")[1].split("/")[0] for r in hub.requests if "safetensors" in r} == {commit}


def test_a_cut_download_resumes(hub, files):
    hub.add("me/cut", files(3.0))
    hub.cut_after += [10**6, 1000, 2000]
    assert load("me/cut") == 3
    assert [r.split()[-1] for r in hub.requests if "bytes=" in r] == ["bytes=1000-", "bytes=3000-"]


@pytest.mark.parametrize("name", ["thumos14", "activitynet1.2"])
def test_a_benchmark_that_is_not_published_says_how_to_get_a_model(hub, offline, name):
    for _ in range(2):
        first, *advice = error(name).splitlines()
        assert first.startswith(f"backtal/{name}: config.json: no")
        assert advice == [
            f"Nothing is published as {name!r} yet. Get a model today:",
            f"  convert the released file:  backtal convert FILE.pth MODEL --recipe {name}-released",
            f"  or train on your features:  backtal train DATA --out RUN --recipe {name}",
        ]
        offline()
    assert hub.requests == [f"HEAD /backtal/{name}/resolve/main/config.json"]


def test_every_name_is_a_recipe_and_its_pin_a_commit():
    for name, (repository, revision) in hub_module.PUBLISHED.items():
        assert name in hub_module.RECIPES
        assert hub_module._REPOSITORY.fullmatch(repository)
        assert revision is None or hub_module._COMMIT.fullmatch(revision)


def test_a_benchmark_that_appears_is_loaded_with_a_warning(hub, files):
    hub.add("backtal/beoid", files(4.0))
    with pytest.warns(UserWarning, match="beoid: nothing was published when .* nobody has vouched for") as caught:
        assert load("beoid") == 4
    assert caught[0].filename == __file__
    del hub.repositories["backtal/beoid"]


def test_a_folder_never_shadows_a_name(hub, files, tmp_path, monkeypatch):
    files(5.0)
    for name in ("thumos14", "mine"):
        (tmp_path / "made").rename(tmp_path / name)
        files(5.0)
    monkeypatch.chdir(tmp_path)
    assert "Nothing is published" in error("thumos14")
    for path in ("./thumos14", tmp_path / "thumos14", str(tmp_path / "thumos14"), Path("thumos14"), "mine", "mine/"):
        assert load(path) == 5
    assert "revision='main' was given" in error("mine", revision="main")
    assert "nowhere: neither a checkpoint's name (thumos14, " in error("nowhere")
    for bad in ("./nowhere", ".", Path("nowhere"), "..."):
        assert "no such" in error(bad)
    for bad in ("", "a/b/c", "a b/c", "a/b@", "x" * 5000, "./" + "x" * 5000, "./\0", "a/b\0", "é/b"):
        assert error(bad)


def test_the_bundled_checkpoint(tmp_path, monkeypatch, files):
    monkeypatch.setitem(hub_module.BUNDLED, "shrec22", tmp_path / "missing")
    assert "missing from this installation" in error("shrec22")
    files(6.0)
    monkeypatch.setitem(hub_module.BUNDLED, "shrec22", tmp_path / "made")
    assert load("shrec22") == 6
    assert "has no revisions" in error("shrec22", revision="main")


def test_missing_private_and_gated(hub, files):
    assert "me/nothing: config.json: no such repository" in error("me/nothing")
    assert error("me/nothing").endswith("there is no such folder here either")
    assert "me/nothing: config.json: no such repository" in error("me/nothing", token=TOKEN)
    hub.add("me/private", files(7.0), private=True)
    assert "or a private one" in error("me/private")
    assert "401" in error("me/private", token="hf_wrong")
    assert load("me/private", token=TOKEN) == 7
    hub.add("me/gated", files(8.0), gated=True)
    assert f"access is restricted: ask for it at {hub.url}/me/gated" in error("me/gated")
    assert load("me/gated", token=TOKEN) == 8
    commit = hub.add("me/no-weights", {"config.json": files()["config.json"]})
    assert f"me/no-weights@{commit}: model.safetensors: no such file at {hub.url}" in error("me/no-weights")


def test_a_token_comes_from_the_environment(hub, files, huggingface):
    hub.add("me/secret", files(7.5), private=True)
    huggingface(HF_ENDPOINT=hub.url, HF_TOKEN=TOKEN)
    assert load("me/secret") == 7.5
    assert "no such repository" in error("me/secret", token=False, revision="main", cache_dir="none")


def test_a_bad_configuration_stops_the_download(hub, files):
    hub.add("me/hostile", files() | {"config.json": b'{"model": {"hidden_dim": 1e99}, "localization": {}}'})
    assert "model.hidden_dim: must be int" in error("me/hostile")
    assert not any("safetensors" in r for r in hub.requests)


def test_a_slow_server(hub, files):
    hub.add("me/slow", files(9.0))
    hub.delay = 0.1
    assert load("me/slow") == 9
    hub.delay = 0.5
    message = error("me/slow", revision="v1")
    assert f"me/slow@v1: config.json: not in the cache, and asking {hub.url} failed: ReadTimeout" in message


def test_a_broken_server(hub, files):
    hub.add("me/broken", files(9.0))
    hub.status = 500
    assert f"me/broken: config.json: not in the cache, and asking {hub.url} failed: HfHub" in error("me/broken")
    hub.reset()
    hub.always_cut = True
    assert f"me/broken: config.json: cannot be downloaded from {hub.url}: RemoteProtocolError" in error("me/broken")


def test_a_server_that_says_the_file_is_empty(hub, files):
    """huggingface_hub takes its word for it and caches an empty file."""
    hub.add("me/empty", files())
    hub.empty_head = True
    assert "config.json: " in error("me/empty")


def test_cached_files_serve_while_the_hub_is_down(hub, files, huggingface):
    hub.add("me/steady", files(1.5))
    assert load("me/steady") == 1.5
    hub.status = 503
    assert load("me/steady") == 1.5
    huggingface(HF_ENDPOINT="http://127.0.0.1:9")
    assert load("me/steady") == 1.5


def test_nobody_listens(hub, huggingface):
    huggingface(HF_ENDPOINT="http://127.0.0.1:9")
    where = "http://127.0.0.1:9"
    assert f"me/x: config.json: not in the cache, and asking {where} failed: ConnectError" in error("me/x")
    with pytest.raises(CheckpointError, match=f"me/x: cannot be pushed to {where}: ConnectError"):
        BackTALModel(CONFIG).push_to_hub("me/x", token=TOKEN)


@pytest.fixture
def mute(huggingface):
    """An address at which connections are taken and nothing is ever answered, as behind some firewalls."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        where = f"http://127.0.0.1:{listener.getsockname()[1]}"
        huggingface(HF_ENDPOINT=where)
        yield where


@pytest.mark.parametrize("name", ["me/x", "thumos14", "me/x@v1"])
def test_without_network_there_is_one_answer_at_once(huggingface, mute, name, caplog, capfd):
    for where, reason in ((mute, "no answer within|ReadTimeout"), ("http://127.0.0.1:9", "ConnectError")):
        huggingface(HF_ENDPOINT=where)
        error(name)  # imports
        start = time.monotonic()
        message = error(name)
        assert time.monotonic() - start < 3
        assert re.search(f"config.json: not in the cache, and asking {where} failed: ({reason})", message)
    assert not caplog.messages
    assert capfd.readouterr() == ("", "")


def test_without_network_the_cache_serves(hub, files, huggingface, mute):
    huggingface(HF_ENDPOINT=hub.url)
    hub.add("me/known", files(2.5))
    assert load("me/known") == 2.5
    huggingface(HF_ENDPOINT=mute)
    assert load("me/known") == 2.5


def test_a_run_folder_that_is_missing_is_said_before_any_request(hub, files, tmp_path, monkeypatch):
    files(5.0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "made").rename(tmp_path / "runs" / "first")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a request was made"))
    assert error("runs/frist").startswith("runs/frist: no such folder; runs is here and holds the runs first (")
    assert error("empty/x").startswith("empty/x: no such folder; empty is here and holds no run (")
    monkeypatch.undo()


def test_a_folder_called_like_an_owner_hides_no_repository(hub, files, tmp_path, monkeypatch):
    hub.add("me/there", files(3.5))
    (tmp_path / "me").mkdir()
    (tmp_path / "backtal").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "the Hub's repository of that name is me/there@main" in error("me/there")
    assert load("me/there@main") == load("me/there", revision="main") == 3.5
    assert "no such repository" in error("backtal/thumos14")


def test_push_then_load(hub):
    model = BackTALModel(CONFIG)
    facts = {"data": "a|b", "license": "mit", "test mAP": "41.2"}
    pushed = model.push_to_hub("me/pushed", token=TOKEN, private=True, facts=facts)
    repository = hub.repositories["me/pushed"]
    assert pushed == f"me/pushed@{repository.branches['main']}"
    assert repository.private
    stored = repository.commits[repository.branches["main"]]
    assert sorted(stored) == ["README.md", "config.json", "model.safetensors"]
    card = stored["README.md"].decode()
    for line in ("| labels | jump, run |", r"| data | a\|b |", "| test mAP | 41.2 |", 'license: "mit"'):
        assert line in card.splitlines()
    assert "from_pretrained('me/pushed')" in card
    loaded = BackTALModel.from_pretrained(pushed, token=TOKEN)
    assert (loaded.facts, loaded.config) == (facts, model.config)
    x = torch.randn(1, 6, 12)
    torch.testing.assert_close(loaded(x), model.eval()(x), rtol=0, atol=0)


def test_push_to_a_branch_or_pull_request(hub):
    model = BackTALModel(CONFIG)
    model.push_to_hub("mine", token=TOKEN)
    branches = hub.repositories["me/mine"].branches
    main = branches["main"]
    assert b"from_pretrained('me/mine')" in hub.repositories["me/mine"].commits[main]["README.md"]
    pushed = model.push_to_hub("me/mine", token=TOKEN, revision="next", commit_message="Better", facts={"a": "b"})
    assert pushed == f"me/mine@{branches['next']}"
    pushed = model.push_to_hub("me/mine", token=TOKEN, create_pr=True, facts={"c": "d"})
    assert pushed == f"me/mine@{branches['refs/pr/1']}"
    assert BackTALModel.from_pretrained(pushed).facts == {"c": "d"}
    assert branches["main"] == main
    with pytest.raises(CheckpointError, match=r"me/mine: cannot be pushed to .*401 Unauthorized"):
        model.push_to_hub("me/mine", token="hf_wrong")


def test_facts_come_from_the_run_and_stay_with_the_model(tmp_path):
    run = {"name": "compact", "training": {"epochs": 3, "seed": 0}, "data": "digest"}
    (tmp_path / "recipe.json").write_text(json.dumps(run))
    spec = FeatureSpec("i3d", fps=25.0, dim=6)
    BackTALModel(dataclasses.replace(CONFIG, feature_spec=spec)).save_pretrained(tmp_path, facts={"clicks": "A1"})
    model = BackTALModel.from_pretrained(tmp_path)
    assert model.facts == {"recipe": "compact", "training": "epochs 3, seed 0", "clicks": "A1"}
    assert "| features | extractor i3d, fps 25.0, dim 6 |" in (tmp_path / "README.md").read_text()
    model.save_pretrained(tmp_path / "again")
    assert BackTALModel.from_pretrained(tmp_path / "again").facts == model.facts


def test_called_on_a_model_it_returns_another(tmp_path):
    model, other = BackTALModel(CONFIG), BackTALModel(CONFIG)
    model.save_pretrained(tmp_path)
    state = torch.get_rng_state()
    loaded = other.from_pretrained(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(loaded.classifier.weight, model.classifier.weight)
    assert not torch.equal(other.classifier.weight, model.classifier.weight)
    assert all(p.requires_grad for p in loaded.parameters())
    assert not loaded.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_types_are_loaded_as_float32(tmp_path, dtype):
    model = BackTALModel(dataclasses.replace(CONFIG, standardize=True))
    model.set_feature_statistics(torch.zeros(6), torch.full((6,), 1e-7))
    model.save_pretrained(tmp_path, dtype=dtype)
    loaded = BackTALModel.from_pretrained(tmp_path)
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.feature_scale, model.feature_scale)
    for name, weight in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), weight.to(dtype).float())
        assert loaded.get_parameter(name).stride() == weight.stride()


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    model = BackTALModel(CONFIG)
    with pytest.raises(CheckpointError, match="labels and facts exceed"):
        model.save_pretrained(tmp_path, facts={"log": "x" * 2**20})
    model.classifier.weight.data[0, 0, 0] = 1e6
    with pytest.raises(CheckpointError, match=r"classifier.weight holds NaN or infinite"):
        model.save_pretrained(tmp_path, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
