"""The demo's video: real H.264 in fMP4 that a browser can append, segment after segment."""

from __future__ import annotations

import base64
import io

import av
import pytest
from PIL import Image

from demo.video import CHUNK_BYTES, Format, Overlay, background_for, encode_segment, jpeg_segment, mime_type

FORMAT = Format(160, 90, 12)
BACKGROUND = background_for(FORMAT, "a", None)


def segment(first_frame: int, frames: int, prompt: str = "a fox"):  # type: ignore[no-untyped-def]
    return encode_segment(FORMAT, Overlay("a", prompt, 0), first_frame, frames, BACKGROUND)


def decoded(data: bytes) -> list[av.VideoFrame]:
    with av.open(io.BytesIO(data)) as container:
        return list(container.decode(video=0))


def boxes(data: bytes) -> list[str]:
    names, at = [], 0
    while at < len(data):
        names.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    return names


def test_a_segment_is_fragmented_mp4_with_every_frame() -> None:
    """ftyp and moov, then moof and mdat in turn; each frame decodes to the asked size."""
    made = segment(0, 12)
    data = b"".join(made.chunks)
    names = boxes(data)
    assert names[:2] == ["ftyp", "moov"]
    assert names[2:6] == ["moof", "mdat", "moof", "mdat"]
    frames = decoded(data)
    assert len(frames) == made.frames == 12
    assert (frames[0].width, frames[0].height) == (160, 90)
    assert made.duration_ms == 1000


def test_segments_follow_each_other_on_one_timeline() -> None:
    """The second begins where the first ended: a player appends them without knowing their lengths."""
    first, second = decoded(b"".join(segment(0, 12).chunks)), decoded(b"".join(segment(12, 12).chunks))
    times = [float(frame.time) for frame in (*first, *second)]
    assert times == pytest.approx([number / 12 for number in range(24)])


def test_the_mime_type_names_the_codec_of_the_stream() -> None:
    """Baseline H.264, as its avcC box says; other data is refused."""
    assert segment(0, 2).mime.startswith('video/mp4; codecs="avc1.42c0')
    with pytest.raises(ValueError, match="avcC"):
        mime_type(b"RIFF")


def test_chunks_are_of_a_size_that_servers_of_this_family_send() -> None:
    """At most 64 KiB each."""
    big = Format(1280, 720, 24)
    made = encode_segment(big, Overlay("a", "x", 0), 0, 24, background_for(big, "a", None))
    assert len(made.chunks) > 1
    assert max(map(len, made.chunks)) <= CHUNK_BYTES


def test_pictures_change_with_the_clock_the_name_and_the_prompt() -> None:
    """Who watches sees that it runs, where it comes from, and what was asked."""
    first, last = decoded(b"".join(segment(0, 12).chunks))[::11]
    assert first.to_image().tobytes() != last.to_image().tobytes()
    other = decoded(b"".join(segment(0, 12, prompt="a lake in the mountains").chunks))[0]
    assert first.to_image().tobytes() != other.to_image().tobytes()
    assert background_for(FORMAT, "a", None).tobytes() != background_for(FORMAT, "b", None).tobytes()


def test_a_clients_image_becomes_the_background() -> None:
    """As base64 or as a data: URL; what is no image is refused."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    for given in (text, f"data:image/png;base64,{text}"):
        assert background_for(FORMAT, "a", given).getpixel((5, 5)) == (255, 0, 0)
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(noise, "PNG")
    cut_short = base64.b64encode(noise.getvalue()[:1000]).decode()
    for bad in ("%%%", base64.b64encode(b"no image").decode(), cut_short):
        with pytest.raises(ValueError, match="initial_image"):
            background_for(FORMAT, "a", bad)


def test_older_clients_get_each_frame_as_a_jpeg() -> None:
    """stream_mode legacy_jpeg: one chunk a frame."""
    made = jpeg_segment(FORMAT, Overlay("a", "a fox", 0), 0, 6, BACKGROUND)
    assert (made.mime, made.frames, made.duration_ms) == ("image/jpeg", 6, 500)
    pictures = [Image.open(io.BytesIO(chunk)) for chunk in made.chunks]
    assert [(picture.format, picture.size) for picture in pictures] == [("JPEG", (160, 90))] * 6
