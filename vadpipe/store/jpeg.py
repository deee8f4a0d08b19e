"""Whether all of a JPEG's picture is there, judged by decoding it.

Pillow refuses data that end too early, but when an end marker comes too early, or codes are not in the table, it
fills the rest with grey without a word, as libjpeg does. FFmpeg can be told to stop at such an error instead, so
its decoder goes through the codes, at an eighth of the size, which costs less than the picture.

What is found: a cut-off file, with or without an end marker behind the cut; missing blocks of a file; codes that
cannot be. What cannot be found, because a JPEG has no checksum: a change after which the codes still make sense
and are as many as before or more, such as most single flipped bits; it shows as a shift of colours or of blocks.
"""

from __future__ import annotations

# Start of frame of the codings that FFmpeg decodes: baseline, extended and progressive Huffman.
_CODINGS = {0xC0, 0xC1, 0xC2}
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN = 0xDA


def check_jpeg(data: bytes) -> None:
    """Check that the picture of a JPEG is complete.

    Raises:
        ValueError: a part of it is missing.
    """
    import av  # takes a quarter of a second, and only ingest needs it
    import av.error

    coding, picture = _without_comments(data)
    if coding not in _CODINGS:
        return
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode", "lowres": "3"}
    try:
        decoder.decode(av.Packet(picture))
    except av.error.InvalidDataError:
        raise ValueError("the JPEG is cut off or damaged: a part of its picture is missing") from None
    except av.error.FFmpegError:
        return  # a subsampling that FFmpeg does not know, so that Pillow's word has to do


def _without_comments(data: bytes) -> tuple[int | None, bytes]:
    """Return the marker of the frame, and the JPEG without what belongs to applications.

    A camera's own notes are no part of the picture, and damage to them none to it.
    """
    coding, kept, position = None, [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a byte that fills
            position += 1
            continue
        if marker == _SCAN:
            break
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES:
            coding = marker
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[position:end])
        position = end
    return coding, b"".join([*kept, data[position:]])
