"""Image files to pixels: where an image is found, every kind of bad image, and what is converted."""

import base64
import os
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from shops import PAGE, arrays_of, dropped, encode, open_shop, originals, picture, product, xml

from elrkit.catalogue import images
from elrkit.catalogue.images import read_thumbnail
from elrkit.catalogue.rules import FeedRules, Rejected

shop = pytest.fixture(open_shop)

# ------------------------------------------------------------------------------------------------ paths

LEAVES, MISSING = "image path leaves the images folder", "image file missing"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../../etc/passwd", LEAVES),
        ("a/../../etc/passwd", LEAVES),
        ("/etc/passwd", MISSING),  # read as one below the folder
        ("%2e%2e/elsewhere/secret.jpg", MISSING),
        ("OUTSIDE/secret.jpg", LEAVES),
        ("ok.jpg%00", MISSING),
        ("..\\..\\boot.ini", LEAVES),
        ("C:/windows/x.jpg", "image path is absolute, expected one below the images folder"),
        ("file:///etc/passwd", "image address neither http nor https"),
        ("data:image/png;base64,AAAA", "image address neither http nor https"),
        ("https://elsewhere.example/x.jpg", "image on a host not allowed for download"),
        ("http://[broken/x.jpg", "image address not understood"),
        ("nowhere.jpg", MISSING),
        ("out.jpg", LEAVES),
        ("outside/secret.jpg", LEAVES),
        ("pipe.jpg", "image is not a file"),
        ("folder.jpg", "image is not a file"),
        ("x" * 300 + ".jpg", MISSING),
    ],
)
def test_no_image_path_leads_out_of_the_folder(shop, path, reason):
    secret = shop.put("elsewhere/secret.jpg", encode(picture(1), "JPEG"))
    inside = shop.put("images/ok.jpg", encode(picture(2), "JPEG")).parent
    (inside / "out.jpg").symlink_to(secret)
    (inside / "outside").symlink_to(secret.parent)
    (inside / "in.jpg").symlink_to("ok.jpg")
    (inside / "folder.jpg").mkdir()
    os.mkfifo(inside / "pipe.jpg")
    manifest = shop.run(xml(product(0, thumbnail=path), product(1, thumbnail="in.jpg")), images=inside)
    (reasons,) = manifest["counts"]["dropped"].values()  # one step dropped it, the row's or the image's
    assert reasons == {reason: 1}
    assert set(shop.labels()) == {"1"}


SPELLED = "found under another spelling of the path"


@pytest.mark.parametrize(
    ("written", "file", "note"),
    [
        ("/media/a.jpg", "media/a.jpg", None),
        ("Photo.JPG", "photo.jpg", SPELLED),
        ("MEDIA/Photo.JPG", "media/photo.jpg", SPELLED),
        ("gr\u00fcn.jpg", "gru\u0308n.jpg", SPELLED),
        ("red%20hat.jpg", "red hat.jpg", SPELLED),
        ("red%20hat.jpg", "red%20hat.jpg", None),
        ("a.jpg, b.jpg", "a.jpg", "first of several in one cell"),
        ("A.jpg|b.jpg", "a.jpg", "first of several in one cell"),
        ("hat, red.jpg", "hat, red.jpg", None),
    ],
)
def test_an_image_is_found_as_other_systems_and_shops_write_its_path(shop, written, file, note):
    path = shop.put(f"images/{file}", encode(picture(77), "JPEG"))
    manifest = shop.run(f'id,label,image\na,hat,"{written}"\n', images=shop.folder / "images")
    assert manifest["counts"]["notes"] == ({note: 1} if note else {})
    (pixels,) = arrays_of(shop.out)["pictures"]
    assert (pixels == read_thumbnail(path.read_bytes()).pixels).all()


def test_of_two_files_that_differ_in_case_none_is_guessed(shop):
    for name in ("Hat.jpg", "hAT.jpg"):
        shop.put(name, encode(picture(7), "JPEG"))
    manifest = shop.run(xml(product(0), product(1, thumbnail="HAT.jpg"), product(2, thumbnail="Hat.jpg")))
    assert dropped(manifest) == {f"image: {MISSING}": 1}


def test_photos_are_found_as_their_addresses_end(shop):
    shop.put("red hat.jpg", encode(picture(77), "JPEG"))
    ends = ["0.jpg?v=17", "a/b/1.JPG", "red%20hat.jpg", "red hat.jpg", "gone.jpg", "..", ""]
    manifest = shop.run(xml(*(product(k, thumbnail=f"https://cdn.example/{end}") for k, end in enumerate(ends))))
    assert manifest["counts"]["notes"] == {"found by the end of their address": 3}  # one is written in two ways
    assert dropped(manifest) == {"image: image on a host not allowed for download": 3}
    found = originals(shop.out, [f"{PAGE}{k}" for k in range(len(ends))], shop.folder)
    assert found.keys() == {f"{PAGE}{k}" for k in range(4)}


# ------------------------------------------------------------------------------------------------ bad images


def png(width: int, height: int) -> bytes:
    """A PNG file whose header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(side: int, tile: int) -> bytes:
    """A black TIFF file of one tile."""
    data = zlib.compress(bytes(tile * tile))
    tags = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(data)}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(tags)) + rows + bytes(4)


# An AVIF file whose header says 100 x 100 and whose frame has 16,000 x 16,000 pixels.
LYING = zlib.decompress(
    base64.b85decode(
        "c-muNU{FXasVqn=%S>Yc0uY^>nP!-"
        "qnV9D5Xy^zOdYzkElE?r7iWw<6MNl?FL1uCZ0~+8f$SlbPvlxL`E;A=T8N_h`@fjhajKT~IJiS1+MrLMS8eFXukdw*;<t3IG7&_<Y<b&<X$}A`<0"
        "Mg!>1<Cn9S|qc$AQfs~3KR<zWL9K?1eiHEIDiySVws_Hqdi!SaB_Z5QC@OR1<+((2DS#Eka%W6F3e9rhp{j+HM0OUP0dY7ED>Vh;<o=@SO4?x5*8"
        "CF2czE-0!oR7lN_2j)F(Iqop%0Q;94!`udOaQ39H4m-"
        "b%Eta<wm7&{f^WrqijkYALsT$@+S0!<Mv(Z)fng*elI&+&g)~>?tdZY;IRAmiU@!`Ko)#f4N-`(sZ64tW_-Yy=;1S`s!~cEbXlilU`ooeXejdA^H"
        "5dh;pWH)A&{|<b5rEGq;_2>&aTqeZtazJ>n)6WUu(jbn3j>swoY+#oJA!wuRXL$tqyWl{{>jWs<z$Lm#u0P2Zs!!-"
        "@a@>@eu?WOX<c>NNAPBty0LkrTR_)BnY*Ebo0GB7T4_mL!s8$%EySUC(%1W?xyYW41J5p;PJWe<xb=gC%UAo_wwzXe$^b)G_z9wvB(_v3*R-"
        "hfiRQ#>i-ljK;`ljEu&}XpD@;$Y_iVz8Hz7p+9~MUBhV?@B#p+6aZ8"
    )
)


BOMB, UNREADABLE, TRUNCATED = "too many pixels (decompression bomb)", "unreadable image", "truncated image"
HEIC = "HEIC image, which Pillow reads with pillow-heif; install that, or save the image as JPEG or PNG"
BAD_IMAGES = {
    "empty": (b"", "not an image"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "vector image (SVG)"),
    "a format that no shop needs": (encode(picture(0), "PPM"), "not an image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0", HEIC),
    "damaged avif": (b"\0\0\0\x1cftypavif\0\0\0\0", UNREADABLE),
    "cut avif": (encode(picture(0), "AVIF")[:-400], UNREADABLE),
    "cut tiff": (encode(picture(0), "TIFF")[:-400], TRUNCATED),
    "truncated": (encode(picture(0), "JPEG")[:-400], TRUNCATED),
    "cut in the header": (encode(picture(0), "PNG")[:20], TRUNCATED),
    "garbage inside": (encode(picture(0), "PNG")[:100] + b"\xff" * 5000, UNREADABLE),
    "bomb": (png(60_000, 60_000), BOMB),
    "bomb that Pillow only warns of": (png(10_000, 10_000), BOMB),
    "bomb that Pillow lets pass": (png(8_000, 8_000), BOMB),
    "bomb that says it is one": (LYING.replace(b"\0\0\0d\0\0\0d", b"\0\0\x3e\x80" * 2), BOMB),
    "bomb that says it is none": (LYING, UNREADABLE),
    # Larger than what a process may have left of its heap, which it would use without asking for more.
    "small image in a large tile": (tiff(100, 14_000), UNREADABLE),
    "in a tile of its size": (tiff(100, 112), "blank image (one colour)"),
    "tiny": (encode(picture(0, (15, 40)), "PNG"), "too small"),
    "ribbon": (encode(picture(0, (20, 400)), "PNG"), "absurd shape"),
    "one colour": (encode(Image.new("RGB", (40, 40), "teal"), "PNG"), "blank image (one colour)"),
    "too many bytes": (b"\xff" * 10_000_001, "file too large"),
}


def test_every_bad_image_is_a_counted_named_rejection(shop):
    products, wanted = [product(0)], Counter()
    for number, (content, reason) in enumerate(BAD_IMAGES.values(), start=10):
        shop.put(f"{number}.jpg", content)
        products.append(product(number))
        wanted[f"image: {reason}"] += 1
    manifest = shop.run(xml(*products))
    assert dropped(manifest) == wanted
    assert manifest["counts"]["kept"] == 1


def test_without_their_readers_avif_and_heic_are_named(monkeypatch):
    monkeypatch.setattr(images, "FORMATS", ["JPEG", "PNG"])
    for brand, named in ((b"avif", "AVIF image, which Pillow reads from 11.3 on; upgrade"), (b"mif1", HEIC)):
        with pytest.raises(Rejected) as error:
            read_thumbnail(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0")
        assert str(error.value).startswith(named)


# ------------------------------------------------------------------------------------------------ conversions


@pytest.mark.parametrize("format", ["PNG", "TIFF", "AVIF", "WEBP", "BMP", "GIF"])
def test_a_picture_of_any_format_and_name_is_a_picture(shop, format):
    shop.put("0.jpg", encode(picture(0), format))
    assert shop.run(xml(product(0)))["counts"]["kept"] == 1
    (pixels,) = arrays_of(shop.out)["pictures"]
    assert np.abs(pixels.astype(int) - read_thumbnail(encode(picture(0), "PNG")).pixels).mean() < 12


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    grey = np.full((40, 40), 40_000, np.uint16)
    grey[:20] = 1_000
    thumbnail = read_thumbnail(encode(Image.fromarray(grey), format))
    assert thumbnail.pixels[31, 16].tolist() == [40_000 >> 8] * 3
    assert thumbnail.pixels[0, 16].tolist() == [1_000 >> 8] * 3
    assert thumbnail.notes == ("16-bit reduced to 8",)


def test_cmyk_palette_transparency_and_animation_become_rgb():
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))  # red ink
    cmyk.paste((255, 0, 0, 0), (0, 0, 40, 20))
    red = read_thumbnail(encode(cmyk, "JPEG", quality=100))
    assert red.notes == ("CMYK converted",)
    assert np.abs(red.pixels[31, 16].astype(int) - [255, 0, 0]).max() <= 8

    palette = picture(3).quantize(8)
    converted = read_thumbnail(encode(palette, "PNG"))
    assert converted.notes == ("palette converted",)
    expected = np.asarray(palette.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(converted.pixels, expected)

    glass = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    glass.paste((0, 0, 255, 255), (0, 0, 40, 20))
    seen = read_thumbnail(encode(glass, "PNG"))
    assert seen.notes == ("transparency made white",)
    assert seen.pixels[[31, 0], 16].tolist() == [[255, 255, 255], [0, 0, 255]]

    first = read_thumbnail(encode(picture(1), "WEBP", save_all=True, append_images=[picture(2)], lossless=True))
    assert first.notes == ("animated, first frame taken",)
    assert np.array_equal(first.pixels, read_thumbnail(encode(picture(1), "PNG")).pixels)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "AVIF"])
def test_exif_orientation_turns_the_picture(format):
    upright = Image.new("RGB", (40, 40), "white")
    upright.paste("red", (0, 0, 40, 20))  # the top is red
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side: to be turned clockwise
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    thumbnail = read_thumbnail(encode(stored, format, exif=exif))
    assert np.abs(thumbnail.pixels[[2, 29], 16].astype(int) - [[255, 0, 0], [255, 255, 255]]).max() <= 8
    assert thumbnail.notes == (() if format == "TIFF" else ("rotated by EXIF orientation",))  # Pillow turns a TIFF


def test_crop_keeps_the_centre_and_pad_keeps_everything():
    wide = Image.new("RGB", (128, 64), "lime")
    wide.paste("red", (0, 0, 32, 64))
    wide.paste("blue", (96, 0, 128, 64))
    wide.paste("black", (64, 0, 96, 64))
    cropped = read_thumbnail(encode(wide, "PNG"), FeedRules(fit="crop")).pixels
    assert (cropped[:, 1:15] == [0, 255, 0]).all()
    assert (cropped[:, 17:31] == 0).all()
    padded = read_thumbnail(encode(wide, "PNG"), FeedRules(fit="pad")).pixels
    assert padded[16, [0, 31]].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert (padded[[*range(8), *range(24, 32)]] == 255).all()
    assert not (padded[8:24] == 255).all(axis=2).any()


# ------------------------------------------------------------------------------------------------ originals


def test_originals_are_the_shop_s_own_pictures_in_full(shop):
    """Of nine products: one found under another spelling, one changed and two gone since the import."""
    for k in range(9):
        shop.put(f"{k}.jpg", encode(picture(k, (90, 60)), "JPEG"))
    shop.run(xml(*map(product, range(8)), product(8, thumbnail="8.JPG")))
    shop.put("1.jpg", encode(picture(99), "JPEG"))
    (shop.folder / "2.jpg").unlink()
    shop.put("3.jpg", b"no picture")
    wanted = [f"{PAGE}{k}" for k in (0, 1, 2, 3, 8)]
    found = originals(shop.out, [*wanted, "unknown"], shop.folder, side=120)
    assert set(found) == {wanted[0], wanted[4]}
    for id_, number in ((wanted[0], 0), (wanted[4], 8)):
        pixels = found[id_]
        assert pixels.shape == (90, 90, 3)  # no larger than it is
        assert (pixels[:10] == 255).all()  # 90 x 60, padded: nothing is cut off
        assert np.abs(pixels[15:75] - np.asarray(picture(number, (90, 60))).astype(int)).mean() < 10
    assert originals(shop.out, wanted[:1], shop.folder, side=60)[wanted[0]].shape == (60, 60, 3)
    with pytest.raises(FileNotFoundError, match=r"images folder .* does not exist"):
        originals(shop.out, wanted, shop.folder / "none")
    path = shop.out / "manifest.json"
    for text in ("[]", "{", "{}"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"out: does not say which images it was made of; import the feed again"):
            originals(shop.out, wanted, shop.folder)


def test_originals_of_class_folders_are_their_files(shop):
    for k in range(3):
        shop.put(f"set/kind {k}/0.png", encode(picture(k, (160, 160)), "PNG"))
    found = originals(shop.folder / "set", ["kind 0/0.png", "kind 2/0.png", "../secret.png", "gone.png"])
    assert set(found) == {"kind 0/0.png", "kind 2/0.png"}
    for id_, pixels in found.items():
        assert (pixels == np.asarray(picture(int(id_[5]), (160, 160)))).all()
