"""Asks a gateway at a fixed rate, however long the answers take, and prints how each request fared.

It asks that many requests, and goes on until SIGUSR1 says that it is enough.

    python open_loop.py <url> <model> <requests> <requests per second> <tokens of an answer>

Runs in a pod of the cluster, from the operator's image. One line of JSON for each request: when it was sent, when
its answer began and when it was whole (seconds since the epoch), its status and the request's id in its head, which
version the header names, which the engine itself names, the question and the likeliest answer, and what went wrong.
Every third request is streamed.
"""

import asyncio
import itertools
import json
import signal
import sys
import time

import aiohttp

STREAMED_EVERY = 3
QUESTIONS = ("You are arrogant", "Are you afraid of the dark?", "You will be happy", "Do you feel pain?")
TIMEOUT_SECONDS = 120


async def main(url: str, model: str, requests: int, requests_per_second: float, max_tokens: int) -> None:
    timeout, enough = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, enough.set)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                if number >= requests and enough.is_set():
                    break
                await asyncio.sleep(begun + number / requests_per_second - time.monotonic())
                group.create_task(ask(session, model, number, max_tokens))


async def ask(session: aiohttp.ClientSession, model: str, number: int, max_tokens: int) -> None:
    streamed, question = number % STREAMED_EVERY == 0, QUESTIONS[number % len(QUESTIONS)]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": streamed,
        "user": f"subject-{number}",
    }
    told = {"sent": time.time(), "begun": None, "streamed": streamed, "status": None, "request_id": "", "version": ""}
    told |= {"engine": [], "question": question, "text": "", "problem": ""}
    try:
        async with session.post("/v1/chat/completions", json=body) as answer:
            told["begun"] = time.time()
            told["status"], told["request_id"] = answer.status, answer.headers.get("x-request-id", "")
            told["version"] = answer.headers.get("x-finetune-version", "")
            text = await answer.text()
            if answer.status != 200:
                told["problem"] = f"{answer.status}: {text[:200]}"
            elif streamed:
                *chunks, end = [line.removeprefix("data: ") for line in text.splitlines() if line]
                pieces = [json.loads(chunk) for chunk in chunks]
                told["engine"] = sorted({piece["model"] for piece in pieces})
                told["text"] = "".join(
                    each["delta"].get("content") or "" for piece in pieces for each in piece["choices"]
                )
                told["problem"] = "" if end == "[DONE]" else f"the stream was cut: {end[:200]}"
            else:
                whole = json.loads(text)
                told["engine"], told["text"] = [whole["model"]], whole["choices"][0]["message"]["content"]
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
        told["problem"] = repr(error)
    told["whole"] = time.time()
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])))
