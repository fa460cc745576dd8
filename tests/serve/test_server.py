"""The process: its port, its signals, and clients that are slow, half there, or lie; over real sockets."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.serve.client import Running, answer, environment, png, running, within

from metaformer.serve.server import HEAD, address, bind

IMAGE = png()


def head(length: int | str = len(IMAGE), path: str = "/predict", *more: str) -> bytes:
    """Of a request with an image."""
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: image/png", f"content-length: {length}", *more]
    return "\r\n".join([*lines, "", ""]).encode()


def ask(server: Running, path: str = "/predict") -> float:
    """Seconds until an image is answered."""
    began = time.monotonic()
    assert server.post(path, IMAGE)[0] == 200
    return time.monotonic() - began


# --- clients that are no good -----------------------------------------------------------------------------------------


def test_fifty_slow_clients_harm_nobody() -> None:
    with running("--limits", "read=2") as server:
        alone = min(ask(server) for _ in range(10))
        slow = [server.raw(head(10_000)[: None if i % 2 else -30]) for i in range(50)]  # half of them with half a head
        for connection in slow:
            connection.sendall(b"x")
        with ThreadPoolExecutor(8) as pool:
            took = list(pool.map(lambda _: ask(server), range(200)))
        assert sorted(took)[100] < 20 * alone + 1
        assert max(took) < 20
        said = [answer(connection) for connection in slow]
        assert sum(b" 408 " in one.partition(b"\r\n")[0] for one in said) == 25
        assert sum(one == b"" for one in said) == 25
        assert b"did not come within 2 s" in b"".join(said)
        ask(server)


def test_a_body_that_drips_is_given_up_in_time() -> None:
    with running("--limits", "read=1") as server:
        connection, began = server.raw(head(10_000)), time.monotonic()
        connection.settimeout(0.1)
        said = b""
        while time.monotonic() - began < 30 and not said:
            try:
                connection.sendall(b"x")
                said = connection.recv(65536)
            except (TimeoutError, OSError):
                continue
        assert b" 408 " in said
        assert time.monotonic() - began > 0.8


def test_half_closed_and_aborted_connections_harm_nobody() -> None:
    with running("--seconds", "0.2") as server:
        for sent in (b"", b"POST", head(), head() + IMAGE[:20], head() + IMAGE):
            half = server.raw(sent)
            half.shutdown(socket.SHUT_WR)
            answer(half)
            reset = server.raw(sent)
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            reset.close()
        ask(server)
        figures = server.get("/metrics")[1]
        assert 'metaformer_waiting_images{model="digits"} 0.0' in figures
        assert re.search(r'reason="cancelled"} [12].0', figures)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (head(len(IMAGE) - 10) + IMAGE, b"HTTP/1.1 400 "),  # the rest is no request
        (head("-5") + IMAGE, b"HTTP/1.1 400 "),
        (head("five") + IMAGE, b"HTTP/1.1 400 "),
        (head("9" * 30) + IMAGE, b"HTTP/1.1 4"),
        (head(10**12) + IMAGE, b"HTTP/1.1 413 "),
        (head(5, "/predict", "content-length: 6") + IMAGE, b"HTTP/1.1 400 "),
        (head(5, "/predict", "transfer-encoding: chunked") + b"5\r\nabcde\r\n0\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/1.1 400 "),
        (b"GET / HTTP/9.9\r\n\r\n", b"HTTP/1.1 400 "),
    ],
)
def test_lies_are_refused(server: Running, sent: bytes, said: bytes) -> None:
    connection = server.raw(sent)
    assert connection.recv(65536).startswith(said)
    connection.close()
    ask(server)


@pytest.fixture(scope="module")
def server() -> "Running":
    with running("--limits", "body=1000000,read=1") as started:
        yield started


def test_a_refusal_is_read_by_a_client_that_sends_on(server: Running) -> None:
    connection = server.raw(head(12_000_000))
    connection.sendall(b"x" * 12_000_000)  # as most clients do: all of it, and then they look
    said = answer(connection)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_large"


def test_who_asks_before_sending_is_refused_before_sending(server: Running) -> None:
    said = answer(server.raw(head(3_000_000, "/predict", "expect: 100-continue")))
    assert said.startswith(b"HTTP/1.1 413 ")
    connection = server.raw(head(len(IMAGE), "/predict", "expect: 100-continue"))
    assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(IMAGE)
    assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
    connection.close()


def test_a_head_without_end_is_cut() -> None:
    with running("--limits", "read=60") as server:
        before, connection = server.memory(), server.raw(b"GET /healthz HTTP/1.1\r\nx-long: ")
        with pytest.raises(OSError):  # noqa: PT011 -- reset or broken pipe, as it comes
            connection.sendall(b"x" * (HEAD * 1000))
        assert server.memory() < before + (20 << 20)


def test_several_requests_on_one_connection(server: Running) -> None:
    connection = server.raw((head() + IMAGE) * 3 + b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert [int(code) for code in re.findall(rb"HTTP/1.1 (\d+) ", answer(connection))] == [200] * 4


# --- too much ---------------------------------------------------------------------------------------------------------


def test_overload_is_told_at_once_and_what_was_taken_is_answered() -> None:
    with running("--seconds", "3", "--places", "4") as server:

        def asked(_: int) -> tuple[int, float, str]:
            status, headers, _ = server.post("/predict", IMAGE)
            return status, time.monotonic(), headers.get("retry-after", "")

        with ThreadPoolExecutor(12) as pool:
            said = list(pool.map(asked, range(12)))
        assert sorted(status for status, _, _ in said) == [200] * 4 + [503] * 8
        assert all(retry == "2" for status, _, retry in said if status == 503)
        assert max(when for status, when, _ in said if status == 503) < min(when for status, when, _ in said if status == 200)


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_what_was_taken_be_answered(number: signal.Signals) -> None:
    with running("--seconds", "3") as server:
        busy = server.raw(head() + IMAGE)
        idle = server.raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert idle.recv(10000).startswith(b"HTTP/1.1 200 ")
        assert within(10, server.busy)
        server.process.send_signal(number)
        assert within(10, lambda: server.get("/readyz") == (503, '{"status":"draining"}'))
        status, headers, said = server.post("/predict", IMAGE)
        assert (status, said["error"]["code"], headers["retry-after"]) == (503, "draining", "5")
        assert answer(busy).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(20) == 0
        with pytest.raises(OSError):  # noqa: PT011 -- nobody listens any more
            server.raw()


def test_draining_ends_in_time_and_says_so() -> None:
    with running("--seconds", "60", "--limits", "drain=0.5,deadline=90") as server:
        busy, slow = server.raw(head() + IMAGE), server.raw(head() + IMAGE[:9])
        assert within(10, server.busy)
        began = time.monotonic()
        server.process.terminate()
        for connection in (busy, slow):
            said = answer(connection)
            assert said.startswith(b"HTTP/1.1 503 ")
            assert b'"draining"' in said
        assert server.process.wait(20) == 0
        assert 0.4 < time.monotonic() - began < 30


def test_a_second_signal_ends_at_once() -> None:
    with running("--seconds", "60", "--limits", "drain=60,deadline=90") as server:
        server.raw(head() + IMAGE)
        assert within(10, server.busy)
        server.process.terminate()
        assert within(10, lambda: server.get("/readyz") == (503, '{"status":"draining"}'))
        server.process.terminate()
        assert server.process.wait(20) == 128 + signal.SIGTERM


def test_a_signal_while_the_models_are_opened() -> None:
    with running("--start", "60") as server:
        assert within(10, lambda: server.get("/readyz") == (503, '{"status":"starting"}'))
        server.process.terminate()
        assert server.process.wait(20) == 0


# --- start ------------------------------------------------------------------------------------------------------------


def test_what_it_says_and_logs() -> None:
    with running("--models", "digits,other") as server:
        assert within(10, lambda: server.get("/readyz")[0] == 200)
        ask(server)
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert server.process.stdout is not None
        out, err = server.process.stdout.read(), server.told()  # communicate() would pass over what readline() left buffered
    assert re.fullmatch(r"Ready after \d+\.\d s: digits \(torch fp32\), other \(onnxruntime fp32\)\n", out)
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["status"] for line in lines if line["path"] == "/predict"] == [200]


def test_a_model_that_cannot_be_opened_ends_it_with_its_sentence() -> None:
    with running("--mood", "broken") as server:
        assert server.process.wait(20) == 1
        assert "ValueError: there is no model in runs/first" in server.told()


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    command = [sys.executable, "-m", "metaformer", "serve", "none.onnx", "--port", str(port)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    taken.close()
    said = f"metaformer: port {port} of 127.0.0.1 cannot be had (Address already in use): choose another with --port\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_addresses() -> None:
    with pytest.raises(ValueError, match=r"^--host nowhere.invalid is no address of this machine"):
        bind("nowhere.invalid", 0)
    with pytest.raises(ValueError, match=r"^port 0 of 192.0.2.1 cannot be had .*: choose another"):
        bind("192.0.2.1", 0)
    with bind("127.0.0.1", 0) as bound:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address(bound))
