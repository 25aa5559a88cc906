"""A Hugging Face Hub on loopback: as much of its HTTP protocol as downloading and pushing use."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<file>.+)")
API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<call>preupload|commit|branch)/(?P<rev>[^/]+)")
TOKEN = "hf_test"


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add files on top of a branch; the 40-hex name of the commit."""
        tree = self.commits.get(self.branches.get(branch, ""), {}) | files
        name = hashlib.sha1(repr((len(self.commits), sorted(tree.items()))).encode()).hexdigest()
        self.commits[name] = tree
        self.branches[branch] = name
        return name


@dataclass
class Hub:
    """The server's state: repositories, the requests so far, and what is to go wrong."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    always_cut: bool = False
    delay: float = 0.0
    status: int | None = None
    empty_head: bool = False

    def add(self, name: str, files: dict[str, bytes], **options: bool) -> str:
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.commit(files)

    def reset(self) -> None:
        self.requests.clear()
        self.cut_after.clear()
        self.always_cut, self.delay, self.status, self.empty_head = False, 0.0, None, False


@contextmanager
def running_hub():
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.resolve()

    def do_GET(self):
        self.resolve()

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append(f"POST {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.fail(401, "", "Invalid username or password.")
        match = API.fullmatch(self.path)
        if self.path == "/api/repos/create":
            content = json.loads(body)
            name = f"{content.get('organization') or 'me'}/{content['name']}"
            if name in self.hub.repositories:
                return self.answer({"url": f"{self.hub.url}/{name}"}, 409)
            self.hub.repositories[name] = Repository(
                private=content.get("visibility") == "private" or content.get("private", False)
            )
            self.hub.repositories[name].commit({})
            return self.answer({"url": f"{self.hub.url}/{name}"})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match is None or match["repo"] not in self.hub.repositories:
            return self.fail(404, "RepoNotFound", "Repository not found")
        repository = self.hub.repositories[match["repo"]]
        if match["call"] == "branch":
            repository.branches[match["rev"]] = repository.branches["main"]
            return self.answer({})
        if match["call"] == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
            return self.answer({"files": [f | {"shouldIgnore": False, "oid": None} for f in files]})
        lines = [json.loads(line) for line in body.splitlines()]
        files = {e["value"]["path"]: base64.b64decode(e["value"]["content"]) for e in lines if e["key"] == "file"}
        branch = "refs/pr/1" if "create_pr=1" in self.path else match["rev"]
        name = repository.commit(files, branch)
        url = f"{self.hub.url}/{match['repo']}"
        answer = {"commitUrl": f"{url}/commit/{name}", "commitOid": name, "pullRequestUrl": f"{url}/discussions/1"}
        return self.answer(answer)

    def resolve(self):
        hub = self.hub
        wanted = self.headers.get("Range")
        if not self.path.startswith("/api/"):  # what the client asks for its own purposes
            hub.requests.append(f"{self.command} {self.path}" + (f" {wanted}" if wanted else ""))
        threading.Event().wait(hub.delay)  # tests replace time.sleep
        if hub.status:
            return self.fail(hub.status, "", "trouble")
        match = RESOLVE.fullmatch(self.path)
        repository = hub.repositories.get(match["repo"]) if match else None
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            return self.fail(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and token is None):
            # The real Hub does not tell whether a repository is missing or private.
            return self.fail(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and token is None:
            return self.fail(401, "GatedRepo", "Access to this model is restricted")
        commit = repository.branches.get(match["rev"], match["rev"])
        if commit not in repository.commits:
            return self.fail(404, "RevisionNotFound", f"Invalid rev id: {match['rev']}")
        content = repository.commits[commit].get(match["file"])
        if content is None:
            return self.fail(404, "EntryNotFound", "Entry not found", commit)
        first = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        empty = hub.empty_head and self.command == "HEAD"
        self.send_header("Content-Length", str(0 if empty else len(content) - first))
        self.end_headers()
        if self.command == "HEAD":
            return None
        body = content[first:]
        if hub.always_cut or hub.cut_after:
            body = body[: 0 if hub.always_cut else hub.cut_after.pop(0)]
            self.close_connection = True
        return self.wfile.write(body)

    def answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Error-Message", message), ("X-Repo-Commit", commit)):
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()
