"""The log of requests: a line each, and nothing in it that a client wrote."""

import json
import re
import sys
import threading

import pytest

from coterie.errors import EnvironmentFault
from coterie.serving.config import LogSettings
from coterie.serving.security import requestlog as module
from coterie.serving.security.requestlog import RequestLog
from tests.serving.security.guardedapp import SHOP, ask, guarded

USER, ITEM, WORD, ADDRESS = "user-4711", "item-0815", "s3cret-w0rd", "203.0.113.99"


def logged(tmp_path, **config):
    path = tmp_path / "serving.log"
    deployed, app = guarded({"log": {"file": str(path)}, **config})

    def lines():
        app.log.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return deployed, app, path, lines


def test_one_line_says_what_was_asked_by_template(tmp_path):
    deployed, app, _, lines = logged(tmp_path)
    key = deployed.key("items")
    reply = ask(app, f"/v1/items/{ITEM}", key=key)
    (line,) = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("ms") > 0
    assert line == {
        "method": "GET",
        "route": "/v1/items/{item_id}",
        "status": 200,
        "bytes": len(reply.body),
        "key": key[4:16],
        "request": reply.headers["x-request-id"],
    }


def test_no_id_word_or_address_that_was_sent_is_in_the_bytes_of_the_log(tmp_path):
    deployed, app, path, lines = logged(tmp_path, access={"failures_per_minute": 5})
    key = deployed.key("recommend", "items", "users", "model")
    hostile = {
        "X-Request-Id": USER, "User-Agent": WORD, "Referer": f"https://shop/{ITEM}", "Cookie": f"a={WORD}",
        "X-Forwarded-For": ADDRESS, "Origin": f"https://{USER}.example", "X-User": USER, "Forwarded": ADDRESS,
    }  # fmt: skip
    body = json.dumps({"user": USER, "items": [ITEM], "word": WORD}).encode()
    for path_asked, method in (
        (f"/v1/items/{ITEM}?user={USER}&q={WORD}", "GET"), (f"/v1/users/{USER}", "DELETE"),
        ("/v1/recommend/basket", "POST"), (f"/v1/fails/{USER}", "GET"), ("/v1/streams", "GET"),
        (f"/v1/{USER}/{ITEM}", "GET"), (f"/static/{ITEM}", "GET"), (f"/{USER}", USER), (f"/v1/users/{USER}/x", "PATCH"),
        (f"//v1/items/{ITEM}", "GET"), (f"/v1/items/{ITEM}/", "GET"),
    ):  # fmt: skip
        content = body if method in ("POST", "PATCH") else None
        for presented in (key, f"csk_{USER}", None):
            ask(app, path_asked, method, hostile, content, presented, client=ADDRESS)
    ask(app, "/health/live", host=f"{USER}.example")
    assert len(lines()) >= 34
    written = path.read_bytes()
    for sent in (USER, ITEM, WORD, ADDRESS, key, key[16:], "4711", "0815"):
        assert sent.encode() not in written
    assert f'"key":"{key[4:16]}"'.encode() in written


def test_a_fault_is_logged_with_its_places_and_without_its_message(tmp_path):
    deployed, app, path, lines = logged(tmp_path, log={"file": str(tmp_path / "serving.log"), "requests": False})
    reply = ask(app, f"/v1/fails/{USER}", key=deployed.key("recommend"))
    (line,) = lines()
    assert line["fault"] == "KeyError"
    assert line["route"] == "/v1/fails/{user_id}"
    assert line["request"] == reply.headers["x-request-id"]
    assert any("guardedapp.py" in place and place.endswith(" fails") for place in line["trace"])
    assert USER.encode() not in path.read_bytes()


def test_a_chain_of_errors_is_followed_and_ends():
    def inner():
        raise ValueError(USER)

    try:
        try:
            inner()
        except ValueError as error:
            raise RuntimeError(ITEM) from error
    except RuntimeError as error:
        error.__cause__.__cause__ = error
        places = module.trace_of(error)
    assert [place for place in places if place.endswith(" at")] == ["RuntimeError at", "ValueError at"]
    assert not any(USER in place or ITEM in place for place in places)


def test_refusals_are_logged_too_and_cors_keeps_its_secrets(tmp_path):
    deployed, app, _, lines = logged(tmp_path)
    deployed.key("recommend", publishable=True)
    ask(app, "/v1/recommend/basket", "OPTIONS", {"Origin": SHOP, "Access-Control-Request-Method": "POST"})
    ask(app, "/v1/recommend/basket", "POST", {}, b"{}")
    assert [(line["method"], line["status"], line["route"], line["key"]) for line in lines()] == [
        ("OPTIONS", 204, "(none)", None),
        ("POST", 401, "(none)", None),
    ]


def test_without_a_file_it_goes_to_stderr(capfd):
    _, app = guarded({"log": {"requests": True}})
    ask(app, "/health/live")
    app.log.close()
    assert json.loads(capfd.readouterr().err)["route"] == "/health/live"


def test_a_file_that_was_moved_is_opened_anew(tmp_path):
    path = tmp_path / "new" / "serving.log"
    log = RequestLog(LogSettings(file=str(path)))
    for name in ("before", "after"):
        log.request("GET", name, 200, 0.1, 1, None, "r")
        log.flush()
        if name == "before":
            path.rename(tmp_path / "old.log")
    log.close()
    assert "before" in (tmp_path / "old.log").read_text()
    assert "after" in path.read_text()
    assert "before" not in path.read_text()


def test_what_a_full_disk_loses_is_counted_and_the_service_goes_on(tmp_path):
    log = RequestLog(LogSettings(file=str(tmp_path / "serving.log")))
    whole, full = log._file.write, True

    class Disk:
        closed = False
        fileno = log._file.fileno
        close = log._file.close

        room = 50

        def write(self, content):
            if not full:
                return whole(content)
            if not self.room:
                raise OSError(28, "No space left on device")
            self.room = 0
            return whole(content[:50])

    log._file = Disk()
    for _ in range(3):
        log.request("GET", "/lost", 200, 0.1, 1, None, "r")
    log.flush()
    full = False
    log.request("GET", "/after", 200, 0.1, 1, None, "r")
    log.close()
    torn, *lines = (tmp_path / "serving.log").read_text().splitlines()
    assert not torn.endswith("}")
    assert [json.loads(line).get("lost") for line in lines] == [None, 3]


def test_lines_that_nobody_writes_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST", 10)
    log = RequestLog(LogSettings(file=str(tmp_path / "serving.log")))
    with log._writing:  # the disk has stopped
        for _ in range(50):
            log.request("GET", "/x", 200, 0.1, 1, None, "r")
        assert len(log._lines) == 10
    log.close()
    last = json.loads((tmp_path / "serving.log").read_text().splitlines()[-1])
    assert last["lost"] == 40


def test_lines_of_many_threads_arrive_whole_and_once(tmp_path):
    log = RequestLog(LogSettings(file=str(tmp_path / "serving.log")))
    threads = [
        threading.Thread(target=lambda: [log.request("GET", "/x", 200, 0.1, 1, None, "r") for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    log.close()
    lines = (tmp_path / "serving.log").read_text().splitlines()
    assert len(lines) == 2000
    assert all(json.loads(line)["route"] == "/x" for line in lines)


def test_a_log_that_cannot_be_opened_is_said_at_start(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path, tmp_path / "file" / "x.log"):
        with pytest.raises(EnvironmentFault, match=r"log\.file"):
            RequestLog(LogSettings(file=str(wrong)))


def test_a_stderr_that_is_closed_harms_nobody(monkeypatch):
    class Closed:
        def write(self, text):
            raise ValueError("I/O operation on closed file")

    log = RequestLog(LogSettings())
    monkeypatch.setattr(sys, "stderr", Closed())
    log.request("GET", "/x", 200, 0.1, 1, None, "r")
    log.close()
    assert log._lost == 1
