"""One session of a demo replica: what contract B says a server does from `gpu_assigned` to `ltx2_stream_complete`.

Called by replica.py once the session has its slot. Two tasks race, one generates and one listens; whichever ends first
ends the session, so that a client's departure is seen also while nothing is generated. Paced as a GPU would be: never
more than a little ahead of what a player shows.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from demo import messages
from demo.messages import BadMessage, Wishes, build
from demo.video import ENCODERS, Format, Overlay, background_for

logger = logging.getLogger("demo.session")

Result = TypeVar("Result")

STEPS = 4
IDLE_PROMPT = "no prompt yet: type one"
# How far generation may run ahead of the clock: what a player needs to start, and to ride out a hiccup.
LEAD_SECONDS = 1.5


@dataclass(frozen=True)
class Pace:
    """How segments come: their length, and how much faster than real time (for tests)."""

    segment_seconds: float = 1.5
    speed: float = 1.0
    segment_cap: int = 0  # 0: no cap
    timeout_seconds: float = 600.0


class GenerationFailed(Exception):
    """A segment could not be made; the cause is for the log, not for the client."""


class Session:
    """Generates until the client has had enough, its time is over, or a cap is reached."""

    def __init__(
        self, connection: ServerConnection, *, name: str, gpu: str, fmt: Format, pace: Pace, threads: Executor
    ) -> None:
        self._connection, self._name, self._gpu = connection, name, gpu
        self._format, self._pace, self._threads = fmt, pace, threads
        self._changed = asyncio.Event()
        self._wishes = Wishes()
        self._first_frame = 0

    async def run(self) -> None:
        """The whole session, from the client's init on."""
        send = self._connection.send
        try:
            self._wishes = messages.read_init(messages.parse(await self._connection.recv()))
            background = await self._in_thread(background_for, self._format, self._name, self._wishes.initial_image)
            self._wishes.initial_image = None  # up to 43 MiB of text
        except (BadMessage, ValueError) as bad:
            await send(messages.error("invalid_message", str(bad), retryable=False))
            await self._connection.close(1008, "invalid_message")
            return
        await send(build("gpu_assigned", gpu_id=self._gpu, session_timeout=self._pace.timeout_seconds))
        fps = self._format.fps
        frames = max(1, round(self._pace.segment_seconds * fps))
        await send(
            build(
                "ltx2_stream_start", preset=self._wishes.preset, width=self._format.width,
                height=self._format.height, fps=fps, num_frames=frames,
            )
        )  # fmt: skip
        listening = asyncio.create_task(self._listen(), name="demo: client's messages")
        generating = asyncio.create_task(self._stream(frames, background), name="demo: client's video")
        try:
            done, _ = await asyncio.wait({listening, generating}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            listening.cancel()
            generating.cancel()
            await asyncio.gather(listening, generating, return_exceptions=True)

    async def _stream(self, frames: int, background: Image.Image) -> None:
        """Generate to the end, and say which it was."""
        code = 1000
        try:
            reason = await self._generate(frames, background)
        except GenerationFailed:
            logger.exception("%s: a segment could not be generated", self._gpu)
            code, reason = 1011, "error"
            failed = messages.error("internal_error", "the segment could not be generated", retryable=True)
            await self._connection.send(failed)
        await self._connection.send(build("ltx2_stream_complete", reason=reason))
        await self._connection.close(code, reason)

    async def _generate(self, frames: int, background: Image.Image) -> str:
        """Segment after segment; returns the reason of the end."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._pace.timeout_seconds
        ahead_of = loop.time()  # when the next segment's first frame is shown, if the player began at once
        made = 0
        while True:
            if await self._wait_for_work(ends_at):
                await self._connection.send(build("session_timeout"))
                return "stop_requested"
            await asyncio.sleep(max(0.0, min(ahead_of - LEAD_SECONDS, ends_at) - loop.time()))
            await self._segment(frames, background)
            made += 1
            ahead_of = max(ahead_of, loop.time() - LEAD_SECONDS) + frames / self._format.fps / self._pace.speed
            if self._wishes.single_clip_mode or made == self._pace.segment_cap:
                return "segment_cap"

    async def _wait_for_work(self, ends_at: float) -> bool:
        """Wait while the client has paused; True when the session's time is over."""
        loop = asyncio.get_running_loop()
        while loop.time() < ends_at:
            self._changed.clear()
            wishes = self._wishes
            if not wishes.generation_paused and (wishes.auto_extension_enabled or wishes.prompts):
                return False
            try:
                async with asyncio.timeout(ends_at - loop.time()):
                    await self._changed.wait()
            except TimeoutError:
                break
        return True

    async def _segment(self, frames: int, background: Image.Image) -> None:
        loop, send, wishes = asyncio.get_running_loop(), self._connection.send, self._wishes
        index, prompt, started = wishes.segment_idx, self._next_prompt(), loop.time()
        stream_id = uuid.uuid4().hex[:12]
        await send(build("ltx2_segment_start", segment_idx=index, prompt=prompt, total_steps=STEPS))
        overlay = Overlay(self._name, prompt, index)
        encode = ENCODERS[wishes.stream_mode]
        encoding = self._in_thread(encode, self._format, overlay, self._first_frame, frames, background)
        for step in range(1, STEPS):
            await send(build("step_complete", segment_idx=index, step=step, total_steps=STEPS, stage="denoise"))
        try:
            segment = await encoding
        except Exception as error:  # whatever the encoder raises, the client is told that it failed
            raise GenerationFailed from error
        await send(build("step_complete", segment_idx=index, step=STEPS, total_steps=STEPS, stage="decode"))
        generated_ms = round((loop.time() - started) * 1000)
        mode = wishes.stream_mode
        await send(build("media_init", segment_idx=index, mime=segment.mime, stream_id=stream_id, mode=mode))
        for chunk in segment.chunks:
            await send(chunk)
        await send(
            build(
                "media_segment_complete", segment_idx=index, stream_id=stream_id, chunks=len(segment.chunks),
                duration_ms=segment.duration_ms,
            )
        )  # fmt: skip
        await send(
            build(
                "ltx2_segment_complete", segment_idx=index, generation_time_ms=generated_ms,
                e2e_latency_ms=round((loop.time() - started) * 1000),
            )
        )  # fmt: skip
        self._first_frame += segment.frames
        wishes.segment_idx += 1

    def _next_prompt(self) -> str:
        """The first of the prompts; the others move up, and come round again where the client loops."""
        prompts = self._wishes.prompts
        if not prompts:
            return IDLE_PROMPT
        prompt = prompts[0]
        if len(prompts) > 1:
            prompts.append(prompts.pop(0)) if self._wishes.loop_generation_enabled else prompts.pop(0)
        elif not self._wishes.auto_extension_enabled:
            prompts.clear()
        return prompt

    async def _listen(self) -> None:
        """The client's messages, until it leaves; a bad one gets an `error` and changes nothing."""
        try:
            async for text in self._connection:
                try:
                    message = messages.parse(text)
                    if message["type"] == messages.SNAPSHOT:
                        state = messages.state_of(self._wishes)
                        await self._connection.send(build("continuation_state_snapshot", state=state))
                    else:
                        messages.apply(message, self._wishes)
                        self._changed.set()
                except BadMessage as bad:
                    await self._connection.send(messages.error("invalid_message", str(bad), retryable=False))
        except ConnectionClosed:
            pass  # it left, and so this ends

    def _in_thread(self, work: Callable[..., Result], *arguments: Any) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
