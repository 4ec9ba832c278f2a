"""Bodies: not too large, in whatever pieces, and not too slowly; clients that leave; faults that stay ours."""

import asyncio

import pytest

from coterie.serving.security.exchange import exchange_of, note_route
from coterie.serving.security.middleware import protect
from tests.serving.security.guardedapp import HOST, Deployed, ask, guarded, scope_of

BASKET = "/v1/recommend/basket"
SMALL = {"access": {"request_bytes": 1000}}


def test_a_body_that_says_it_is_too_large_is_never_read():
    deployed, app = guarded(SMALL)
    reply = ask(app, BASKET, "POST", body=b"x" * 1001)
    assert reply.status == 413
    assert "1,000 bytes" in reply.problem
    assert deployed.metrics.refusals == ["size"]


def test_a_body_of_just_the_limit_is_taken():
    body = b'{"items": []}'.ljust(1000)
    _, app = guarded(SMALL)
    assert ask(app, BASKET, "POST", body=body).status == 200
    assert ask(app, BASKET, "POST", body=[body[:500], body[500:]]).status == 200


def test_chunks_without_a_length_are_counted_and_refused_at_the_limit():
    _, app = guarded(SMALL)
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 10, "more_body": True}

    reply = run(app, receive, [("transfer-encoding", "chunked"), ("content-type", "application/json"), ("host", HOST)])
    assert reply[0]["status"] == 413
    assert taken == 101


def test_a_length_that_lies_does_not_help():
    _, app = guarded(SMALL)

    async def receive():
        return {"type": "http.request", "body": b"x" * 2000, "more_body": False}

    reply = run(app, receive, [("content-length", "10"), ("content-type", "application/json"), ("host", HOST)])
    assert reply[0]["status"] == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "0x10", "", "9" * 5000, "١٢", "1, 1"])
def test_a_length_that_is_no_number_is_400(length):
    _, app = guarded(SMALL)
    headers = [("content-length", length.encode().decode("latin-1")), ("content-type", "application/json")]
    assert ask(app, BASKET, "POST", headers).status == 400


def test_a_body_that_drips_is_given_up():
    deployed, app = guarded(body_seconds=0.1)

    async def receive():
        await asyncio.sleep(0.03)
        return {"type": "http.request", "body": b" ", "more_body": True}

    reply = run(app, receive, [("transfer-encoding", "chunked"), ("content-type", "application/json"), ("host", HOST)])
    assert reply[0]["status"] == 408
    assert deployed.metrics.refusals == ["slow"]


def test_who_leaves_before_the_body_is_whole_gets_nothing_and_is_counted():
    deployed, app = guarded()
    coming = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive():
        return next(coming)

    headers = [("transfer-encoding", "chunked"), ("content-type", "application/json"), ("host", HOST)]
    assert run(app, receive, headers) == []
    assert deployed.metrics.requests == [("(none)", "POST", 499)]


def test_a_route_still_learns_that_the_client_has_gone():
    deployed = Deployed()
    heard = []

    async def bare(scope, receive, send):
        heard.extend([await receive(), await receive()])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    assert ask(protect(bare, deployed), "/v1/x", "POST", body=[b"{", b"}"]).status == 200
    assert heard == [{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}]


def test_a_fault_is_a_500_without_a_word_of_what_it_was():
    deployed, app = guarded()
    reply = ask(app, "/v1/fails/user-4711")
    assert reply.status == 500
    assert b"4711" not in reply.body
    assert b"KeyError" not in reply.body
    assert deployed.metrics.requests == [("/v1/fails/{user_id}", "GET", 500)]


def test_a_fault_that_no_framework_catches_is_a_problem_with_a_reference():
    deployed = Deployed()

    async def bare(scope, receive, send):
        raise KeyError("user-4711")

    reply = ask(protect(bare, deployed), "/v1/x")
    assert reply.problem == f"a fault of the service; its log knows it as {reply.headers['x-request-id']}"
    assert b"4711" not in reply.body


def test_an_answer_that_breaks_off_is_not_raised_to_the_server():
    deployed, app = guarded()
    assert ask(app, "/v1/streams").status == 200
    assert deployed.metrics.requests == [("/v1/streams", "GET", 200)]


def test_a_task_that_is_cancelled_stays_cancelled():
    deployed = Deployed()

    async def bare(scope, receive, send):
        await asyncio.sleep(60)

    async def main():
        task = asyncio.ensure_future(protect(bare, deployed)(scope_of("/x", "GET", [("host", HOST)]), None, None))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert deployed.metrics.requests == [("(none)", "GET", 499)]


def test_a_fast_route_says_its_own_template():
    deployed = Deployed()

    async def bare(scope, receive, send):
        note_route(scope, "/v1/recommend/basket")
        assert exchange_of(scope).caller is not None
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    assert ask(protect(bare, deployed), "/v1/recommend/basket", "POST", body=b"{}").status == 200
    assert deployed.metrics.requests == [("/v1/recommend/basket", "POST", 200)]


def test_a_method_of_ones_own_is_no_label():
    deployed, app = guarded()
    ask(app, "/v1/items/7", "USER4711")
    assert [method for _, method, _ in deployed.metrics.requests] == ["other"]


def test_websockets_are_closed_and_the_servers_own_messages_pass():
    deployed = Deployed()
    heard = []

    async def bare(scope, receive, send):
        heard.append(scope["type"])

    app = protect(bare, deployed)
    sent = []

    async def main():
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await app({"type": "websocket", "headers": [], "path": "/v1/x"}, receive, send)
        await app({"type": "lifespan"}, receive, send)

    asyncio.run(main())
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert heard == ["lifespan"]


def run(app, receive, headers, path=BASKET):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope_of(path, "POST", headers, "192.0.2.7"), receive, send))
    return sent
