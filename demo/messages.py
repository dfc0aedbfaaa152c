"""PURE. The messages of contract B: a client's are read and checked here, a server's are built.

Called by session.py. A message that is not as the contract says is a `BadMessage`, whose text the client gets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INIT = "session_init_v2"
PROMPT = "segment_prompt_source"
SNAPSHOT = "snapshot_state"
# Messages with one value each: message type → name of what it sets.
SWITCHES = {
    "enhancement_updated": "enhancement_enabled",
    "auto_extension_updated": "auto_extension_enabled",
    "loop_generation_updated": "loop_generation_enabled",
    "generation_paused_updated": "generation_paused",
}
SEED_PROMPTS = "seed_prompts_updated"
STREAM_MODES = ("av_fmp4", "legacy_jpeg")  # fMP4 for a player; or each frame as a JPEG, as older clients expect
DEFAULT_PRESET = "demo"
MAX_PROMPT_CHARACTERS = 2000


class BadMessage(ValueError):
    """What is wrong with a client's message; the text goes into the `error` frame."""


@dataclass
class Wishes:
    """What a client wants generated, as its messages have said so far."""

    preset: str = DEFAULT_PRESET  # echoed; the demo has but one way to generate
    stream_mode: str = STREAM_MODES[0]
    prompts: list[str] = field(default_factory=list)
    initial_image: str | None = None  # base64 of an image file, or a data: URL
    enhancement_enabled: bool = False
    auto_extension_enabled: bool = True
    loop_generation_enabled: bool = True
    single_clip_mode: bool = False
    generation_paused: bool = False
    segment_idx: int = 0  # the next segment's number; a continuation begins behind 0


def parse(text: str | bytes) -> dict[str, Any]:
    """A text frame as a message: a JSON object with a `type`."""
    if isinstance(text, bytes):
        raise BadMessage("clients send text frames; this one was binary")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("not JSON") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise BadMessage("not an object with a `type`")
    return message


def read_init(message: Mapping[str, Any]) -> Wishes:
    """The first message of a session; every field of it is optional."""
    if message["type"] != INIT:
        raise BadMessage(f"the first message must be {INIT}, not {message['type'][:60]}")
    wishes = Wishes(prompts=_prompts(message.get("curated_prompts", []), "curated_prompts"))
    if message.get("preset") is not None:
        wishes.preset = _text(message["preset"], "preset")
    if message.get("stream_mode") is not None:
        wishes.stream_mode = message["stream_mode"]
    if wishes.stream_mode not in STREAM_MODES:
        raise BadMessage(f"stream_mode must be one of {', '.join(STREAM_MODES)}")
    for name in ("enhancement_enabled", "auto_extension_enabled", "loop_generation_enabled", "single_clip_mode"):
        if message.get(name) is not None:
            setattr(wishes, name, _flag(message[name], name))
    wishes.initial_image = _image(message.get("initial_image"))
    state = message.get("continuation_state")
    if state is not None:
        _resume(wishes, state)
    return wishes


def apply(message: Mapping[str, Any], wishes: Wishes) -> None:
    """A later message into `wishes`. Raises BadMessage for one that is unknown or wrong."""
    kind = message["type"]
    if kind == PROMPT:
        wishes.prompts = [_text(message.get("prompt"), "prompt")]
    elif kind == SEED_PROMPTS:
        wishes.prompts = _prompts(_value(message), "the value")
    elif kind in SWITCHES:
        setattr(wishes, SWITCHES[kind], _flag(_value(message), "the value"))
    elif kind == INIT:
        raise BadMessage(f"{INIT} came twice")
    else:
        raise BadMessage(f"unknown type {kind[:60]}")


def state_of(wishes: Wishes) -> dict[str, Any]:
    """What `continuation_state_snapshot` carries, and `session_init_v2` may bring back."""
    return {"kind": "demo", "payload": {"segment_idx": wishes.segment_idx, "prompts": wishes.prompts}}


def build(kind: str, **fields: Any) -> str:
    """A server's message."""
    return json.dumps({"type": kind, **fields})


def error(code: str, message: str, *, retryable: bool) -> str:
    """An `error` message, with a code that clients know (contract A1)."""
    return build("error", code=code, message=message, retryable=retryable)


def _resume(wishes: Wishes, state: object) -> None:
    payload = state.get("payload") if isinstance(state, dict) else None
    if not isinstance(state, dict) or state.get("kind") != "demo" or not isinstance(payload, dict):
        raise BadMessage("continuation_state must be a snapshot of this kind of server: {kind: demo, payload: {…}}")
    segment = payload.get("segment_idx")
    if isinstance(segment, bool) or not isinstance(segment, int) or not 0 <= segment < 1_000_000:
        raise BadMessage("continuation_state.payload.segment_idx must be a whole number ≥ 0")
    wishes.segment_idx = segment
    wishes.prompts = wishes.prompts or _prompts(payload.get("prompts", []), "continuation_state.payload.prompts")


def _value(message: Mapping[str, Any]) -> object:
    values = [value for name, value in message.items() if name != "type"]
    if len(values) != 1:
        raise BadMessage(f"{message['type']} carries exactly one value")
    return values[0]


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise BadMessage(f"{name} must be true or false")
    return value


def _prompts(value: object, name: str) -> list[str]:
    if not isinstance(value, list):
        raise BadMessage(f"{name} must be a list of texts")
    return [_text(entry, f"{name}[{index}]") for index, entry in enumerate(value)]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_PROMPT_CHARACTERS:
        raise BadMessage(f"{name} must be a text of 1 to {MAX_PROMPT_CHARACTERS} characters")
    return value.strip()


def _image(value: object) -> str | None:
    """The data of `initial_image`, an object that holds it under `data`, `base64` or `url`."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise BadMessage("initial_image must be an object")
    for name in ("data", "base64", "url"):
        if isinstance(data := value.get(name), str):
            return data
    raise BadMessage("initial_image must hold the image as text, under `data`")
