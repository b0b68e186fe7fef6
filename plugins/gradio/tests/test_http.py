"""The gateway over HTTP: served files, allowed requests, access and language."""

from __future__ import annotations

import base64
import http.client
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

import pytest

pytest.importorskip("gradio", reason="the page needs gradio")

from attrs import evolve

from .asking import Server, ask, multipart

pytestmark = pytest.mark.load


@pytest.fixture(scope="module")
def result(server: Server) -> str:
    """A file in the output folder, with others around it that must not be served."""
    (server.output / "fox.mp4").write_bytes(b"0123456789")
    (server.output / "fox.txt").write_text("no result")
    (server.output / ".hidden.json").write_text("{}")
    (server.output.parent / "secret.json").write_text("secret")
    (server.output / "link.json").unlink(missing_ok=True)
    (server.output / "link.json").symlink_to(server.output.parent / "secret.json")
    (server.output / "folder.mp4").mkdir(exist_ok=True)
    return "fox.mp4"


def test_a_result_is_served(server: Server, result: str) -> None:
    status, headers, body = ask(server, f"/results/{result}")
    assert (status, body, headers["content-type"]) == (200, b"0123456789", "video/mp4")
    assert headers["x-content-type-options"] == "nosniff"
    status, headers, body = ask(server, f"/results/{result}", headers={"Range": "bytes=2-4"})
    assert (status, body) == (206, b"234")
    _, headers, _ = ask(server, f"/results/{result}?download")
    assert headers["content-disposition"].startswith("attachment")


NAMES = [
    "../secret.json", "..%2fsecret.json", "%2e%2e/secret.json", "..%5csecret.json", "....//secret.json",
    "/etc/passwd", "%2fetc%2fpasswd", "link.json", "folder.mp4", "fox.txt", ".hidden.json", "fox.mp4/",
    "fox.mp4%00.json", "fox.mp4%0a", "uploads/../fox.mp4", "FOX.MP4", "a" * 3000 + ".mp4", "",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_of_the_machine_is(server: Server, result: str, name: str) -> None:
    status, _, body = ask(server, f"/results/{name}")
    assert status in (400, 404), body
    assert b"secret" not in body
    assert b"root:" not in body


PATHS = [
    "{out}/fox.mp4", "{out}/../secret.json", "{out}/uploads/../../secret.json", "/etc/passwd", "/proc/self/environ",
    "{out}/uploads/link/secret.json", "http://127.0.0.1:1/x", "https://example.org/x", "{model}/config.json",
    "..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "file:///etc/passwd", "/etc/passwd%00.png",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_gradio_serves_uploads_only(server: Server, result: str, path: str) -> None:
    link = server.output / "uploads" / "link"
    if not link.is_symlink():
        link.symlink_to(server.output.parent, target_is_directory=True)
    path = path.format(out=server.output, model=server.model)
    for form in (path, quote(path, safe="")):
        status, _, body = ask(server, f"/gradio_api/file={form}")
        assert status in (400, 403, 404), body
        assert b"secret" not in body


Tell: TypeAlias = Callable[[str, object], tuple[int, bytes]]


@pytest.fixture(scope="module")
def tell(server: Server) -> Tell:
    """Sends the form with a value of one of its inputs, as a tab does; the answer is that of its plan."""
    config = json.loads(ask(server, "/config")[2])
    components = {component["id"]: component["props"] for component in config["components"]}
    listener = next(entry for entry in config["dependencies"] if entry["api_name"] == "_check")

    def told(name: str, value: object) -> tuple[int, bytes]:
        data = [
            value if components[key].get("elem_id") == name else components[key].get("value")
            for key in listener["inputs"]
        ]
        body = json.dumps({"data": data, "fn_index": listener["id"], "session_hash": "a"}).encode()
        kind = {"Content-Type": "application/json"}
        status, _, answer = ask(server, "/gradio_api/run/predict", method="POST", headers=kind, body=body)
        return status, answer

    return told


@pytest.fixture
def sent(server: Server) -> str:
    """A picture that somebody sent: its place."""
    headers, body = multipart("sent.png", b"\x89PNG")
    return (
        ask(server, "/gradio_api/upload", method="POST", headers=headers, body=body)[2].decode().strip('[]"')
    )


META = {"_type": "gradio.FileData"}


@pytest.mark.parametrize("name", ["image", "ref_images", "src_video"])
@pytest.mark.parametrize("path", [*PATHS, "uploads/sent.png", "data:image/png;base64,AAAA", "a\0b", 7, None])
def test_a_request_names_uploads_only(
    server: Server, result: str, name: str, path: object, tell: Tell
) -> None:
    """A request of a tab cannot name a file of the machine, or another host."""
    if isinstance(path, str):
        path = path.format(out=server.output, model=server.model)
    before = sorted((server.output / "uploads").rglob("*")), server.connections.read_text()
    for file in ({"path": path, "meta": META}, {"path": path}, {"path": path, "meta": META, "url": path}):
        status, said = tell(name, [file] if name == "ref_images" else file)
        assert (status, b"was not uploaded to this page" in said) == (403, True), said
    assert before == (sorted((server.output / "uploads").rglob("*")), server.connections.read_text())


@pytest.mark.parametrize(
    "url", ["https://example.org/x", "data:image/png;base64,AAAA", "/gradio_api/file=/etc/passwd", 7]
)
def test_an_upload_is_not_said_to_be_elsewhere(sent: str, url: object, tell: Tell) -> None:
    assert tell("image", {"path": sent, "meta": META, "url": url})[0] == 403


def test_uploads_arrive(server: Server, sent: str, tell: Tell) -> None:
    for url in (None, f"{server.url}gradio_api/file={sent}", f"/gradio_api/file={quote(sent)}"):
        status, said = tell("image", {"path": sent, "meta": META, "url": url})
        assert status == 200, said
        assert b"Plan:" in said, said


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"path": "/etc/passwd"'])
def test_what_is_no_request_is_refused(server: Server, body: bytes) -> None:
    kind = {"Content-Type": "application/json"}
    for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
        assert ask(server, path, method="POST", headers=kind, body=body)[0] == 403


@pytest.mark.parametrize(
    "path",
    ["/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/stream/a/b/1/playlist.m3u8", "/docs", "/openapi.json",
     "/gradio_api/vibe-code/", "/monitoring", "/gradio_api/deep_link", "/gradio_api/runs", "/login",
     "/assets/../config", "/gradio_api/openapi.json", "/gradio_api/dev/reload", "/gradio_api/call/_submit"],
)  # fmt: skip
def test_what_the_page_does_not_need_is_closed(server: Server, path: str) -> None:
    for method in ("GET", "POST"):
        status, _, _ = ask(server, path, method=method, body=b"" if method == "POST" else None)
        assert status in (404, 405)
    assert ask(server, "/", method="DELETE")[0] == 405


def test_an_upload_comes_back_and_too_much_is_refused(server: Server) -> None:
    headers, body = multipart("fox.png", b"\x89PNG" + bytes(1000))
    status, _, answer = ask(server, "/gradio_api/upload", method="POST", headers=headers, body=body)
    assert status == 200, answer
    path = answer.decode().strip('[]"')
    assert Path(path).is_relative_to(server.output / "uploads")
    assert ask(server, f"/gradio_api/file={path}")[2][:4] == b"\x89PNG"
    headers, body = multipart("big.png", bytes(3_500_000))
    status, _, answer = ask(server, "/gradio_api/upload", method="POST", headers=headers, body=body)
    assert status == 413
    assert b"exceeds the limit of 3 MB" in answer
    assert not list((server.output / "uploads").rglob("big.png"))


def test_an_upload_that_does_not_say_its_length_ends_at_the_limit(server: Server) -> None:
    _, body = multipart("sly.png", bytes(3_500_000))
    connection = http.client.HTTPConnection(server.host, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=edge", "Transfer-Encoding": "chunked"}
    pieces = [body[at : at + 65536] for at in range(0, len(body), 65536)]
    try:
        connection.request(
            "POST", "/gradio_api/upload", body=iter(pieces), headers=headers, encode_chunked=True
        )
        status = connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        status = 0  # hung up on
    finally:
        connection.close()
    assert status != 200
    assert not [
        file
        for file in (server.output / "uploads").rglob("*")
        if file.is_file() and file.stat().st_size > 3_400_000
    ]


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/evil.png", "evil\\..\\x.png", "a" * 400 + ".png"])
def test_a_crafted_file_name_stays_in_its_folder(server: Server, name: str) -> None:
    headers, body = multipart(name, b"\x89PNG")
    status, _, answer = ask(server, "/gradio_api/upload", method="POST", headers=headers, body=body)
    if status == 200:
        path = Path(answer.decode().strip('[]"'))
        assert path.resolve().is_relative_to(server.output / "uploads")
        assert ".." not in path.parts
    assert not (server.output.parent / "evil.png").exists()
    assert not Path("/etc/evil.png").exists()


def test_other_pages_and_names_are_kept_out(server: Server) -> None:
    join = "/gradio_api/queue/join"
    body, kind = b"{}", {"Content-Type": "application/json"}
    assert (
        ask(server, join, method="POST", headers={**kind, "Origin": "http://evil.example"}, body=body)[0]
        == 403
    )
    assert ask(server, join, method="POST", headers={**kind, "Origin": "null"}, body=body)[0] == 403
    assert ask(server, "/", headers={"Host": "evil.example"})[0] == 421
    assert ask(server, "/", headers={"Host": f"localhost:{server.host.partition(':')[2]}"})[0] == 200


def test_the_page_says_what_browsers_may_do(server: Server) -> None:
    status, headers, _ = ask(server, "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_too_much_said_is_refused(server: Server) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": str(50 * 2**20)}
    assert ask(server, "/gradio_api/queue/join", method="POST", headers=headers, body=b"{")[0] == 413
    headers["Content-Length"] = "many"
    assert ask(server, "/gradio_api/queue/join", method="POST", headers=headers, body=b"{")[0] == 400


@pytest.mark.slow
def test_a_password_and_a_token(serve: Callable[..., Server]) -> None:
    server = serve("--auth", "me:sec:ret", "--token")
    address, _, query = server.url.partition("?")
    assert query.startswith("token=")
    plain = evolve(server, url=address)
    right = {"Authorization": "Basic " + base64.b64encode(b"me:sec:ret").decode()}
    for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"me:sec").decode()},
                    {"Authorization": "Basic ???"}, {"Authorization": "Bearer me:sec:ret"}):  # fmt: skip
        status, said, _ = ask(plain, f"/?{query}", headers=headers)
        assert status == 401
        assert said["www-authenticate"].startswith("Basic")
    assert ask(plain, "/", headers=right)[0] == 401
    assert ask(plain, "/?token=wrong", headers=right)[0] == 401
    assert ask(plain, "/results/fox.mp4", headers=right)[0] == 401
    status, said, _ = ask(plain, f"/?{query}", headers=right)
    assert (status, said["location"]) == (303, "/")
    cookie = f"lightx2v_token={query.removeprefix('token=')}"
    assert ask(plain, "/", headers={**right, "Cookie": cookie})[0] == 200
    assert ask(plain, "/", headers={"Cookie": cookie})[0] == 401


@pytest.mark.parametrize(
    ("headers", "tag", "label"),
    [
        ({}, "en", "Negative prompt"),
        ({"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh-CN", "负向提示词"),
        ({"Accept-Language": "zh-CN", "Cookie": "lightx2v_language=en"}, "en", "Negative prompt"),
        ({"Cookie": "lightx2v_language=zh"}, "zh-CN", "负向提示词"),
        ({"Cookie": "lightx2v_language=../x"}, "en", "Negative prompt"),
    ],
)
def test_the_page_has_a_language(server: Server, headers: dict[str, str], tag: str, label: str) -> None:
    status, answer, body = ask(server, "/?job=x", headers=headers)
    assert status == 200
    page = body.decode()
    assert (answer["content-language"], answer["vary"]) == (tag, "Accept-Language, Cookie")
    assert answer["content-length"] == str(len(body))
    assert re.search(rf'<html\s+lang="{tag}"', page)
    assert f'"label":"{label}"' in page.replace('": "', '":"')
    assert f"'language', {{value: '{tag}'}}" in page


def test_other_languages_have_a_path_of_their_own(server: Server, sent: str) -> None:
    labels = {
        path: {
            component["props"].get("label") for component in json.loads(ask(server, path)[2])["components"]
        }
        for path in ("/config", "/zh/config")
    }
    assert "提示词" in labels["/zh/config"] - labels["/config"]
    assert ask(server, f"/zh/gradio_api/file={sent}")[2] == b"\x89PNG"
    for path in ("/zh/gradio_api/file=/etc/passwd", "/zh/gradio_api/file=%2fetc%2fpasswd"):
        assert ask(server, path)[0] == 403
    for path in (
        "/zh/docs",
        "/zh/gradio_api/openapi.json",
        "/zh/results/x.mp4",
        "/zh/../docs",
        "/zh/zh/config",
    ):
        assert ask(server, path)[0] == 404, path
    status, headers, _ = ask(server, "/zh/")
    assert (status, headers["location"]) == (303, "/")
    body = json.dumps({"data": [{"path": "/etc/passwd"}], "fn_index": 1}).encode()
    kind = {"Content-Type": "application/json", "Accept-Language": "zh"}
    status, _, answer = ask(server, "/zh/gradio_api/run/predict", method="POST", headers=kind, body=body)
    assert (status, answer.decode()) == (403, "'/etc/passwd' 没有上传到此页面\n")


def test_labels_are_the_terms_of_the_field(server: Server) -> None:
    status, _, body = ask(server, "/config")
    assert status == 200
    labels = {component["props"].get("label") for component in json.loads(body)["components"]}
    assert labels >= {
        "Prompt", "Negative prompt", "Steps", "Guidance scale", "Frames", "Resolution", "Seed", "Flow shift", "FPS",
        "Scheduler", "Attention", "Offload", "RAM limit, GB",
    }  # fmt: skip
