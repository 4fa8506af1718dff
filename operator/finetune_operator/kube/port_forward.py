"""A port of a pod, by way of the API server, as kubectl forwards it: one TCP connection in each.

Over a WebSocket of the protocol `v4.channel.k8s.io`: a message begins with the number of its channel, of which one
carries bytes and the other what the kubelet says went wrong; the first message on each is the port. Source: Kubernetes,
`pkg/kubelet/server` and `k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`.
"""

from collections.abc import AsyncIterator

import aiohttp

from finetune_operator.kube.errors import Unavailable
from finetune_operator.logs import cause

PROTOCOL = "v4.channel.k8s.io"
DATA, ERRORS = 0, 1


class PodConnection:
    """Bytes to and from the pod."""

    def __init__(self, websocket: aiohttp.ClientWebSocketResponse) -> None:
        self._websocket = websocket

    async def send(self, content: bytes) -> None:
        """Raises `Unavailable`."""
        try:
            await self._websocket.send_bytes(bytes((DATA,)) + content)
        except aiohttp.ClientError as error:
            raise Unavailable(f"the connection to the pod broke: {cause(error)}") from error

    async def received(self) -> AsyncIterator[bytes]:
        """Until the pod closes. Raises `Unavailable`, such as where nothing listens at the port."""
        begun: set[int] = set()
        async for message in self._websocket:
            if message.type is aiohttp.WSMsgType.TEXT:
                raise Unavailable("the API server forwards no port: it sends text")
            if message.type is aiohttp.WSMsgType.ERROR:
                break
            if not message.data:
                continue
            channel, content = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)
            elif channel == ERRORS:
                raise Unavailable(content.decode(errors="replace"))
            else:
                yield content
        if self._websocket.close_code == aiohttp.WSCloseCode.ABNORMAL_CLOSURE:
            raise Unavailable("the connection to the pod broke: it ended without a word")
