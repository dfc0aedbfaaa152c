"""The demo replica's reading of contract B's client messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.messages import BadMessage, Wishes, apply, build, parse, read_init, state_of


def init(**fields: Any) -> Wishes:
    return read_init({"type": "session_init_v2", **fields})


def test_every_field_of_the_init_is_optional() -> None:
    """Contract B."""
    assert init() == Wishes()


def test_the_init_says_what_is_wanted() -> None:
    """Prompts, switches, and a state to go on from."""
    wishes = init(
        curated_prompts=["a", " b "],
        preset="cinema",
        stream_mode="legacy_jpeg",
        enhancement_enabled=True,
        loop_generation_enabled=False,
        single_clip_mode=True,
        continuation_state={"kind": "demo", "payload": {"segment_idx": 7, "prompts": ["old"]}},
    )
    assert (wishes.prompts, wishes.segment_idx) == (["a", "b"], 7)
    assert (wishes.preset, wishes.stream_mode) == ("cinema", "legacy_jpeg")
    assert (wishes.enhancement_enabled, wishes.loop_generation_enabled, wishes.single_clip_mode) == (True, False, True)


def test_a_snapshot_brings_back_where_it_was() -> None:
    """state_of → continuation_state is the identity on what matters."""
    wishes = Wishes(prompts=["x", "y"], segment_idx=3)
    resumed = init(continuation_state=json.loads(json.dumps(state_of(wishes))))
    assert (resumed.prompts, resumed.segment_idx) == (["x", "y"], 3)


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_mode": "webm"},
        {"stream_mode": ["av_fmp4"]},
        {"preset": 5},
        {"curated_prompts": "a"},
        {"curated_prompts": [""]},
        {"enhancement_enabled": "yes"},
        {"initial_image": "x"},
        {"initial_image": {"width": 5}},
        {"continuation_state": {"kind": "other", "payload": {}}},
        {"continuation_state": {"kind": "demo", "payload": {"segment_idx": -1}}},
        {"continuation_state": 5},
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any]) -> None:
    """The client is told which."""
    with pytest.raises(BadMessage) as bad:
        init(**fields)
    assert next(iter(fields)) in str(bad.value)


@pytest.mark.parametrize("text", ["", "x", "[]", "5", '{"a": 1}', '{"type": 5}', b"\x00", "[" * 100_000])
def test_what_is_no_message_is_refused(text: str | bytes) -> None:
    """Every text frame is JSON with a type."""
    with pytest.raises(BadMessage):
        parse(text)


def test_the_init_must_be_first() -> None:
    """And comes once."""
    with pytest.raises(BadMessage, match="first message must be session_init_v2"):
        read_init({"type": "snapshot_state"})
    with pytest.raises(BadMessage, match="twice"):
        apply({"type": "session_init_v2"}, Wishes())


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        ({"type": "segment_prompt_source", "prompt": "new", "seed": 1}, "prompts", ["new"]),
        ({"type": "seed_prompts_updated", "prompts": ["a", "b"]}, "prompts", ["a", "b"]),
        ({"type": "enhancement_updated", "enabled": True}, "enhancement_enabled", True),
        ({"type": "auto_extension_updated", "enabled": False}, "auto_extension_enabled", False),
        ({"type": "loop_generation_updated", "enabled": False}, "loop_generation_enabled", False),
        ({"type": "generation_paused_updated", "paused": True}, "generation_paused", True),
    ],
)
def test_later_messages_change_the_wishes(message: dict[str, Any], name: str, value: object) -> None:
    """One value each, whatever its key."""
    wishes = Wishes()
    apply(message, wishes)
    assert getattr(wishes, name) == value


@pytest.mark.parametrize(
    "message",
    [
        {"type": "dance"},
        {"type": "segment_prompt_source"},
        {"type": "enhancement_updated"},
        {"type": "enhancement_updated", "a": True, "b": True},
        {"type": "generation_paused_updated", "paused": "yes"},
        {"type": "seed_prompts_updated", "prompts": [1]},
    ],
)
def test_a_bad_later_message_changes_nothing(message: dict[str, Any]) -> None:
    """It gets an error, and the session goes on."""
    wishes = Wishes(prompts=["a"])
    with pytest.raises(BadMessage):
        apply(message, wishes)
    assert wishes == Wishes(prompts=["a"])


def test_built_messages_are_json_with_a_type() -> None:
    """Contract B."""
    assert json.loads(build("gpu_assigned", gpu_id="a/gpu0")) == {"type": "gpu_assigned", "gpu_id": "a/gpu0"}
