"""The client of benchmarks/service.py, in a process of its own: one command a line comes in as JSON, one answer goes out.

Requests are made beforehand and answers are not read but counted, so that it takes little of the processor.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

BOUNDARY = b"benchmark"


def request(images: list[bytes]) -> bytes:
    """The bytes of one `POST /predict`."""
    if len(images) == 1:
        kind, body = b"image/jpeg", images[0]
    else:
        kind = b"multipart/form-data; boundary=" + BOUNDARY
        head = b'\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
        body = b"".join(b"--" + BOUNDARY + head + image + b"\r\n" for image in images) + b"--" + BOUNDARY + b"--\r\n"
    lines = b"POST /predict?top=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return lines % (kind, len(body)) + body


class Client:
    """Keeps connections, and what came of requests."""

    def __init__(self, port: int, images: list[bytes]) -> None:
        self.port, self.images = port, images
        self.idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    def requests(self, each: int) -> list[bytes]:
        """Of so many images each."""
        count = len(self.images)
        return [request([self.images[(start + i) % count] for i in range(each)]) for start in range(0, count, each)]

    async def ask(self, data: bytes) -> int:
        """The status; 0 where the connection broke. One that the service closed while nobody used it is opened again."""
        while self.idle:
            if (status := await self._ask(data, *self.idle.pop())) is not None:
                return status
        try:
            return await self._ask(data, *await asyncio.open_connection("127.0.0.1", self.port)) or 0
        except OSError:
            return 0

    async def _ask(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        try:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
        except (OSError, EOFError):
            writer.close()
            return None
        if b"connection: close" in head.lower():
            writer.close()
        else:
            self.idle.append((reader, writer))
        return int(head[9:12])

    async def closed(self, clients: int, seconds: float, each: int) -> dict[str, object]:
        """Each client asks again when it is answered. Images of what was answered within the time."""
        made, taken, statuses = self.requests(each), list[float](), Counter[int]()
        end = time.monotonic() + seconds

        async def one(place: int) -> None:
            while (began := time.monotonic()) < end:
                status = await self.ask(made[place % len(made)])
                place += clients
                if (now := time.monotonic()) < end:
                    statuses[status] += 1
                    taken.append(now - began)

        await asyncio.gather(*(one(place) for place in range(clients)))
        return told(seconds, taken, statuses) | {"images_per_second": statuses[200] * each / seconds}

    async def paced(self, rate: float, seconds: float, *, poisson: bool) -> dict[str, object]:
        """So many requests of one image a second, whatever comes of them; a time counts from when a request was due."""
        made, draw = self.requests(1), random.Random(0)
        taken: dict[int, list[float]] = {}
        running: set[asyncio.Task[None]] = set()

        async def one(data: bytes, due: float) -> None:
            status = await self.ask(data)
            taken.setdefault(status, []).append(time.monotonic() - due)

        start = due = time.monotonic()
        number = 0
        while due < start + seconds:
            await asyncio.sleep(due - time.monotonic())
            task = asyncio.create_task(one(made[number % len(made)], due))
            running.add(task)
            task.add_done_callback(running.discard)
            number += 1
            due += draw.expovariate(rate) if poisson else 1 / rate
        await asyncio.gather(*running)
        return {str(status): told(seconds, values, Counter({status: len(values)})) for status, values in taken.items()}

    async def until(self, each: int) -> dict[str, object]:
        """Asks one request after another until one is answered with 200."""
        began, failed = time.monotonic(), 0
        while await self.ask(self.requests(each)[0]) != 200:
            failed += 1
            await asyncio.sleep(0.05)
        return {"seconds": time.monotonic() - began, "failed": failed}


def told(seconds: float, taken: list[float], statuses: Counter[int]) -> dict[str, object]:
    """Counts and times."""
    ranked = sorted(taken) or [float("nan")]
    times = {f"p{part}": ranked[min(len(ranked) - 1, len(ranked) * part // 100)] for part in (50, 90, 99)}
    return {"seconds": seconds, "requests": len(taken), "statuses": dict(statuses), **times, "most": ranked[-1]}


async def main() -> None:
    """`service_client.py PORT FOLDER`."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    client = Client(port, [file.read_bytes() for file in sorted(folder.iterdir())])
    for line in sys.stdin:
        name, options = json.loads(line)
        print(json.dumps(await getattr(client, name)(**options)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
