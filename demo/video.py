"""Real H.264 video without a GPU: pictures drawn with Pillow, encoded with PyAV, as fMP4 that a browser appends.

Called by session.py, in a thread: one second of video takes a few hundredths of one. Timestamps go on from segment to
segment (tfdt), so that a player appends all segments to one timeline without knowing their lengths. Older clients get
each frame as a JPEG instead (`legacy_jpeg`). demo/lettering.py fits the prompt into the picture.
"""

from __future__ import annotations

import base64
import binascii
import colorsys
import io
import re
import zlib
from dataclasses import dataclass
from fractions import Fraction

import av
from PIL import Image, ImageDraw, UnidentifiedImageError

from demo.lettering import fitted, font

CHUNK_BYTES = 64 * 1024
FRAGMENT_MICROSECONDS = 250_000
PROMPT_LINES = 3
_AVCC = re.compile(rb"avcC\x01(...)", re.DOTALL)


@dataclass(frozen=True)
class Format:
    """Size in pixels (even numbers) and frames a second."""

    width: int = 640
    height: int = 360
    fps: int = 24


@dataclass(frozen=True)
class Segment:
    """One segment of video: `chunks` are byte ranges of ftyp+moov, then moof+mdat …, each at most 64 KiB; or JPEGs."""

    mime: str
    chunks: list[bytes]
    frames: int
    duration_ms: int


@dataclass(frozen=True)
class Overlay:
    """What is written over the picture: the replica's name, the prompt, the segment's number."""

    name: str
    prompt: str
    index: int


def encode_segment(fmt: Format, overlay: Overlay, first_frame: int, frames: int, background: Image.Image) -> Segment:
    """Draw and encode `frames` frames; the first one is shown at `first_frame` / fps seconds of the stream."""
    output = io.BytesIO()
    container = av.open(
        output,
        "w",
        format="mp4",
        options={
            # A fragment every 250 ms, each playable as it comes; the first one says at what time it is shown.
            "movflags": "empty_moov+default_base_moof+frag_discont",
            "frag_duration": str(FRAGMENT_MICROSECONDS),
            "avoid_negative_ts": "disabled",  # or the muxer would shift every segment to 0
            "use_editlist": "0",
        },
    )
    with container:
        stream = container.add_stream(
            "libx264",
            rate=fmt.fps,
            options={"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "g": str(frames)},
        )
        stream.width, stream.height, stream.pix_fmt = fmt.width, fmt.height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, fmt.fps)
        for number in range(first_frame, first_frame + frames):
            frame = av.VideoFrame.from_image(draw(fmt, overlay, number, background))
            frame.pts, frame.time_base = number, Fraction(1, fmt.fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = output.getvalue()
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    return Segment(mime_type(data), chunks, frames, round(frames * 1000 / fmt.fps))


def jpeg_segment(fmt: Format, overlay: Overlay, first_frame: int, frames: int, background: Image.Image) -> Segment:
    """The same frames, each one a chunk that is a JPEG."""
    chunks = []
    for number in range(first_frame, first_frame + frames):
        file = io.BytesIO()
        draw(fmt, overlay, number, background).save(file, "JPEG")
        chunks.append(file.getvalue())
    return Segment("image/jpeg", chunks, frames, round(frames * 1000 / fmt.fps))


# stream_mode (contract B) → what makes its segments.
ENCODERS = {"av_fmp4": encode_segment, "legacy_jpeg": jpeg_segment}


def mime_type(data: bytes) -> str:
    """The MIME type of an fMP4, with the codec as its avcC box says (RFC 6381 §3.3)."""
    found = _AVCC.search(data)
    if found is None:
        raise ValueError("no avcC box: not H.264 in MP4")
    return f'video/mp4; codecs="avc1.{found.group(1).hex()}"'


def draw(fmt: Format, overlay: Overlay, number: int, background: Image.Image) -> Image.Image:
    """One frame: the replica's name, the prompt, and a clock that runs, over a background that drifts."""
    shift = (number * 2) % background.width
    picture = Image.new("RGB", (fmt.width, fmt.height))
    picture.paste(background, (-shift, 0))
    picture.paste(background, (background.width - shift, 0))
    pen, unit = ImageDraw.Draw(picture, "RGBA"), fmt.height // 18
    seconds = number / fmt.fps
    clock = f"{int(seconds // 60):02}:{seconds % 60:05.2f}"
    pen.text(
        (unit, unit * 0.6), overlay.name, font=font(unit * 5), fill="white", stroke_width=1, stroke_fill="#00000080"
    )
    pen.text((fmt.width - unit, unit), clock, font=font(unit * 2), fill="white", anchor="ra")
    number_text = f"segment {overlay.index}"
    pen.text((fmt.width - unit, unit * 3.4), number_text, font=font(int(unit * 1.1)), fill="#ffffffcc", anchor="ra")
    letters = int(unit * 1.3)
    lines = fitted(overlay.prompt, letters, fmt.width - 2 * unit, PROMPT_LINES)
    top = fmt.height - unit * (1.5 + 1.7 * len(lines))
    pen.rectangle((0, top - unit * 0.5, fmt.width, fmt.height), fill="#00000070")
    for row, line in enumerate(lines):
        pen.text((unit, top + unit * 1.7 * row), line, font=font(letters), fill="white")
    done = (number % (fmt.fps * 10)) / (fmt.fps * 10)
    pen.rectangle((0, fmt.height - unit * 0.25, fmt.width * done, fmt.height), fill="#ffd166")
    return picture


def background_for(fmt: Format, name: str, image: str | None) -> Image.Image:
    """The client's image where one was sent, else a band of colours of the replica's own; tileable in width.

    Raises ValueError for an image that cannot be read.
    """
    if image is not None:
        return _decoded(image).resize((fmt.width, fmt.height))
    hue = (zlib.crc32(name.encode()) % 360) / 360
    small = Image.new("RGB", (64, 2))
    for x in range(64):
        away = abs(x - 32) / 32
        for y in (0, 1):
            rgb = colorsys.hsv_to_rgb((hue + 0.12 * away) % 1, 0.75, (0.55, 0.25)[y] + 0.2 * away)
            small.putpixel((x, y), tuple(round(255 * part) for part in rgb))
    return small.resize((fmt.width, fmt.height), Image.Resampling.BICUBIC)


def _decoded(image: str) -> Image.Image:
    data = image.partition("base64,")[2] if image.startswith("data:") else image
    try:
        return Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB")
    except (binascii.Error, UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError("initial_image is not an image in base64") from error
