"""Who may ask the page's server: the token, the names of the host, foreign sites, and paths out of the project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snaketune.errors import ConfigError
from snaketune.ui.access import Access, choose_access
from snaketune.ui.project import Project
from snaketune.ui.server import make_app
from starlette.testclient import TestClient

TOKEN = "a-token-of-the-tests"
ACCESS = Access("127.0.0.1", 8471, TOKEN)
BASE = "http://127.0.0.1:8471"
OWN = {"Authorization": f"Bearer {TOKEN}", "Origin": BASE}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    (root / "results").mkdir(parents=True)
    (root / "data").mkdir()
    (root / "mine.yaml").write_text("run: mine\n")
    (tmp_path / "secret.txt").write_text("a secret")
    return Project(root)


@pytest.fixture
def client(project: Project) -> Iterator[TestClient]:
    with TestClient(make_app(project, ACCESS), base_url=BASE, follow_redirects=False) as made:
        yield made


def test_whoever_lacks_the_token_sees_and_changes_nothing(client: TestClient) -> None:
    for path in ("/", "/api/runs", "/page/main.js", "/pages/mine/report"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/api/start", json={"configuration": "mine.yaml"}, headers={"Origin": BASE}).status_code == 401
    assert client.get("/?token=wrong").status_code == 401


def test_the_token_moves_from_the_address_into_a_cookie_that_no_script_reads(client: TestClient) -> None:
    entered = client.get(f"/?token={TOKEN}")
    assert entered.status_code == 303
    assert entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert client.get("/").status_code == 200


def test_a_token_in_the_address_opens_the_first_page_alone(project: Project) -> None:
    with TestClient(make_app(project, ACCESS), base_url=BASE) as fresh:
        assert fresh.get(f"/api/runs?token={TOKEN}").status_code == 401


@pytest.mark.parametrize(
    "host",
    ["evil.example:8471", "127.0.0.1.evil.example:8471", "127.0.0.1:80", "", "localhost", "10.0.0.5:8471", "[::1"],
)
def test_a_name_that_was_bound_to_loopback_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={**OWN, "Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8471", "localhost:8471", "[::1]:8471"])
def test_every_name_of_loopback_is_served(client: TestClient, host: str) -> None:
    assert client.get("/api/runs", headers={"Authorization": OWN["Authorization"], "Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8471", "http://127.0.0.1:9999"])
def test_a_foreign_origin_is_refused_with_the_token_too(client: TestClient, origin: str) -> None:
    for method in ("GET", "POST"):
        refused = client.request(method, "/api/runs", headers={**OWN, "Origin": origin})
        assert refused.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_another_site_embeds_is_refused(client: TestClient, site: str) -> None:
    given = {"Authorization": OWN["Authorization"], "Sec-Fetch-Site": site}
    assert client.get("/api/runs", headers=given).status_code == 403
    assert client.get("/page/main.js", headers=given).status_code == 403


def test_a_change_without_an_origin_is_refused(client: TestClient) -> None:
    headers = {"Authorization": OWN["Authorization"]}
    assert client.post("/api/start", json={"configuration": "mine.yaml"}, headers=headers).status_code == 403


def test_every_reply_binds_the_browser(client: TestClient) -> None:
    for path, status in (("/", 200), ("/api/runs", 200), ("/page/none.js", 404), ("/page/main.js", 200)):
        found = client.get(path, headers=OWN)
        assert found.status_code == status
        policy = found.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/page/..%2F..%2Fsecret.txt",
        "/page/%2e%2e/%2e%2e/secret.txt",
        "/pages/..%2F..%2Fsecret.txt/report",
        "/pages/mine/..%2F..%2F..%2Fsecret.txt",
        "/api/runs/..%2F..%2Fsecret.txt",
        "/api/runs/mine/log?path=../../secret.txt",
        "/api/runs/mine/log?path=results/mine/logs/../../../../secret.txt",
        "/api/runs/mine/log?path=/etc/passwd",
        "/api/runs/mine/log?path=results/mine/logs/x%00.log",
    ],
)
def test_no_path_leads_out_of_the_project(client: TestClient, path: str) -> None:
    found = client.get(path, headers=OWN)
    assert found.status_code in (404, 422)
    assert "a secret" not in found.text


def test_a_link_out_of_the_project_is_not_followed(client: TestClient, project: Project) -> None:
    logs = project.root / "results/mine/logs"
    logs.mkdir(parents=True)
    (logs / "step.log").symlink_to(project.root.parent / "secret.txt")
    found = client.get("/api/runs/mine/log?path=results/mine/logs/step.log", headers=OWN)
    assert found.status_code == 422


@given(st.text(min_size=1, max_size=40))
def test_a_path_of_the_project_stays_in_it_whatever_is_written(text: str) -> None:
    project = Project(Path("/somewhere/project"))
    try:
        found = project.path(text)
    except (ConfigError, ValueError):
        return
    assert found.resolve().is_relative_to(project.root)


def test_a_network_needs_a_long_token_of_the_persons_own() -> None:
    for token in (None, "short"):
        with pytest.raises(ConfigError, match="everybody"):
            choose_access("0.0.0.0", 8471, token)
    opened = choose_access("0.0.0.0", 8471, "sixteen-letters-or-more")
    assert opened.knows("192.168.1.7:8471")
    assert not opened.knows("evil.example:8471")
    assert opened.token in opened.address


def test_two_starts_have_different_tokens() -> None:
    assert choose_access("127.0.0.1", 1, None).token != choose_access("127.0.0.1", 1, None).token
