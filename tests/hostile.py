"""Files that ask for far more than they hold: small on disk, huge to whoever trusts them."""

import struct
import zlib

SIDE = 13_300  # squared, 177 megapixels


def png(width: int, height: int, depth: int = 1, color: int = 0, rows: bytes = b"") -> bytes:
    """A PNG with any header; ``rows`` are its filtered scan lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def whole_png(side: int = SIDE) -> bytes:
    """A black PNG of one bit per pixel whose rows are all there: 22 kB for 177 megapixels."""
    return png(side, side, rows=bytes((1 + (side + 7) // 8) * side))


def png_without_width() -> bytes:
    """A PNG of no column and 4278190101 rows."""
    return png(0, 4_278_190_101, 8, 2, bytes(500))


def webp(side: int = SIDE) -> bytes:
    """A whole WebP of one colour, 34 bytes whatever its side."""
    bits = (side - 1) | (side - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes.fromhex("07 10 11 fd 0f 44 44 ff 03")
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def webp_canvas(side: int = SIDE) -> bytes:
    """An animated WebP of a large canvas and a frame of a pixel."""
    frame = webp(1)[12:]
    canvas = b"\x02\0\0\0" + 2 * (side - 1).to_bytes(3, "little")
    image = bytes(6) + bytes(6) + bytes(3) + b"\0" + frame
    data = b"VP8X" + struct.pack("<I", 10) + canvas
    data += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    data += b"ANMF" + struct.pack("<I", len(image)) + image
    return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WEBP" + data


def gif(screen: int = 1, frame: int = SIDE) -> bytes:
    """A GIF whose screen and first frame have sizes of their own."""
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", screen, screen, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, frame, frame, 0)
        + b"\x02\x02\x44\x01\x00;"
    )


def tiff(width: int = SIDE, height: int = SIDE, tile: int | None = None) -> bytes:
    """A grey TIFF packed by deflate, in one strip or in tiles of any size."""
    data = zlib.compress(bytes(1000))
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    if tile is None:
        tags |= {273: 8, 278: height, 279: len(data)}
    else:
        tags |= {322: tile, 323: tile, 324: 8, 325: len(data)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())
    )
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def jpeg2000(told: int = 4, coded: int = SIDE, channels: int = 1) -> bytes:
    """A JP2 whose box tells one size and whose code stream another."""

    def box(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(data), kind) + data

    size = struct.pack(">HIIIIIIIIH", 0, coded, coded, 0, 0, coded, coded, 0, 0, channels)
    size += channels * b"\x07\x01\x01"
    stream = b"\xff\x4f\xff\x51" + struct.pack(">H", 2 + len(size)) + size + b"\xff\x90" + bytes(50)
    header = box(b"ihdr", struct.pack(">IIHBBBB", told, told, 1, 7, 7, 0, 0))
    header += box(b"colr", b"\x01\0\0" + struct.pack(">I", 17))
    return (
        box(b"jP  ", b"\r\n\x87\n")
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"jp2h", header)
        + box(b"jp2c", stream)
    )


def jpeg(width: int = SIDE, height: int = SIDE, scans: int = 1, fill: int = 0) -> bytes:
    """A progressive JPEG without data, and fill bytes that end in no marker."""
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\0\0\0"
    comment = b"\xff\xfe\0\x04\xff\xd9"  # with what looks like the end
    filled = fill * b"\xff" + b"\0" if fill else b""
    return b"\xff\xd8" + comment + b"\xff\xc2" + frame + filled + scans * scan + b"\xff\xd9"


def pam(width: int = SIDE, height: int = SIDE) -> bytes:
    """A PAM, which OpenCV alone reads."""
    size = f"WIDTH {width}\nHEIGHT {height}\nDEPTH 1\nMAXVAL 255\nTUPLTYPE GRAYSCALE\n"
    return b"P7\n" + size.encode() + b"ENDHDR\n" + bytes(50)


def npy(shape: object, descr: str = "<f4", data: bytes = b"", header: str | None = None) -> bytes:
    """An array file with any header."""
    text = header or f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"
    body = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x02\0" + struct.pack("<I", len(body)) + body + data


def npz(array: bytes, zeros: int = 0, told: int | None = None, method: int = 8) -> bytes:
    """An archive of one array: ``array``, and behind it ``zeros`` times 1 MiB of zeros.

    ``told`` is the size in bytes that its directory gives, ``method`` how it says to be packed.
    """
    name, packer = b"disparity.npy", zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(array) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    data = start + zeros * block + packer.flush()
    size = len(array) + zeros * 2**20 if told is None else told
    facts = struct.pack("<HHHHIIIHH", 0, method, 0, 0, zlib.crc32(array), len(data), size, 13, 0)
    local = b"PK\3\4" + struct.pack("<H", 20) + facts + name + data
    entry = b"PK\1\2" + struct.pack("<HH", 20, 20) + facts + bytes(14) + name
    return local + entry + b"PK\5\6" + struct.pack("<4HIIH", 0, 0, 1, 1, len(entry), len(local), 0)


def avi(frame: bytes, side: int = SIDE, count: int = 3) -> bytes:
    """A video of PNG frames, whose header gives their side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)

    codec = b"MPNG"
    film = struct.pack("<14I", 40_000, 0, 0, 16, count, 0, 1, 0, side, side, *bytes(4))
    stream = b"vids" + codec + struct.pack("<8I", 0, 0, 0, 1, 25, 0, count, 0) + bytes(16)
    picture = struct.pack("<IiiHH4s5I", 40, side, side, 1, 24, codec, *bytes(5))
    streams = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", picture))
    head = chunk(b"LIST", b"hdrl" + chunk(b"avih", film) + streams)
    frames = chunk(b"LIST", b"movi" + count * chunk(b"00dc", frame))
    return chunk(b"RIFF", b"AVI " + head + frames)


PICTURES = {
    "without width.png": png_without_width(),
    "one bit.png": whole_png(),
    "deep.png": png(SIDE, SIDE, 16, 2),
    "lossless.webp": webp(),
    "canvas.webp": webp_canvas(),
    "frame.gif": gif(),
    "screen.gif": gif(SIDE, 1),
    "strip.tif": tiff(),
    "tiles.tif": tiff(64, 64, tile=2**16 - 16),
    "size.jp2": jpeg2000(SIDE),
    "stream.jp2": jpeg2000(),
    "channels.jp2": jpeg2000(64, 64, channels=16_000),
    "size.jpg": jpeg(),
    "scans.jpg": jpeg(8000, 8000, scans=5000),
    "fill.jpg": jpeg(64, 64, scans=5000, fill=2**20),
    "binary.pgm": b"P5\n13300 13300\n255\n",
    "plain.ppm": b"P3\n13300 13300\n255\n1 2 3",
    "comment.ppm": b"P6\n#" + bytes(2_000_000) + b"\n8 8\n255\n" + bytes(192),
    "blanks.pbm": b"P4" + b" " * 2_000_000 + b"8 8\n" + bytes(8),
    "comments.pgm": b"P2\n8 8\n255\n" + b"#\n" * 100_000 + b"1 " * 64,
    "long.ppm": b"P6\n2000000000 1\n255\n",
    "grey.pam": pam(),
}
"""Images that are refused by their headers, each with the suffix that it passes for."""

DISPARITIES = {
    "one bit.png": png(SIDE, SIDE),
    "deep.png": png(SIDE, SIDE, 16),
    "strip.tiff": tiff(),
    "tiles.tif": tiff(64, 64, tile=2**16 - 16),
    "plain.pgm": b"P2\n13300 13300\n65535\n1 2 3",
    "size.pfm": b"Pf\n13300 13300\n-1.0\n" + bytes(64),
    "overflow.pfm": b"Pf\n999999999 999999999\n-1.0\n" + bytes(64),
    "nothing.pfm": b"Pf\n0 5\n-1.0\n",
    "negative.pfm": b"Pf\n-4 -4\n-1.0\n" + bytes(64),
    "shape.npy": npy((10**6, 10**6)),
    "overflow.npy": npy((2**40, 2**40)),
    "negative.npy": npy((-4, -4), data=bytes(64)),
    "short.npy": npy((10_000, 10_000)),
    "nested.npy": npy(0, header="-" * 9000 + "1"),
    "objects.npy": npy((4, 4), "|O", bytes(128)),
    "records.npy": npy(
        (4, 4), header="{'descr': [('a', '<f4')], 'fortran_order': 0, 'shape': (4,)}"
    ),
    "header.npy": b"\x93NUMPY\x02\0\xff\xff\xff\xff{",
    "shape.npz": npz(npy((SIDE, SIDE)), zeros=675),
    "told.npz": npz(npy((10_000, 10_000)), told=2**32 - 1),
    "less told.npz": npz(npy((100, 100), data=bytes(40_000)), told=64),
    "header.npz": npz(b"\x93NUMPY\x02\0\xff\xff\xff\x7f{", zeros=500),
    "lzma.npz": npz(npy((4, 4), data=bytes(64)), method=14),
}
"""Disparity maps that are refused, most of them by their headers."""

VIDEOS = {
    "told.avi": avi(png(SIDE, SIDE)),
    "not told.avi": avi(whole_png(), side=64),
    "picture.mp4": whole_png(),
    "suffix.data": avi(whole_png()),
}
"""Videos of frames that are too large."""
