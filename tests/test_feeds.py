"""What is read in a feed file before its products are: entities as meant. Whole files are read in test_catalogue."""

import html

import pytest

from elrkit.catalogue import feeds


def test_what_entities_mean_against_html_s_own_reader():
    text = "a & b &amp; &lt;&gt; &euro; &NotEqualTilde; &nosuch; &#228; &#x20AC; & &; &é &copy no; end&"
    mended = feeds._Mended()
    got = b"".join(feeds._entities_as_meant([text[:30].encode(), text[30:].encode()], mended)).decode()
    once = html.unescape(text.replace("&copy no", "&amp;copy no"))  # without its semicolon it is text here
    assert html.unescape(got) == once
    assert "&#38; &#60;&#62;" in got
    assert (mended.times, mended.first_line) == (9, 1)


@pytest.mark.parametrize("damage", ["a\x01b", "<b>open", "a<br>b", "a\xff"])
def test_one_error_takes_no_entity_from_the_products_after_it(tmp_path, damage):
    shelf = "Bags &amp; Shoes &gt; &quot;Boots&quot; &apos;n&apos; &lt;more&gt;"
    item = "<item><id>{}</id><title>{}</title><shelf>{}</shelf></item>"
    items = [item.format(1, damage, "x"), *(item.format(n, "fine", shelf) for n in (2, 3))]
    path = tmp_path / "feed.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="utf-8"?><feed>{"".join(items)}</feed>'.encode("latin-1"))
    errors: list[str] = []
    found = list(feeds.read_xml(path, "item", {"id": "id", "label": "shelf"}, errors))
    assert errors
    assert [product["label"] for product in found if product and product["id"] in "23"] == [html.unescape(shelf)] * 2


def test_the_first_line_that_is_mended_is_told():
    text = b"<a>\n<b>&amp;</b>\n<c>x & y</c>\n<d>&</d>"
    for size in (1, 3, 1000):
        mended = feeds._Mended()
        blocks = [text[at : at + size] for at in range(0, len(text), size)]
        assert b"".join(feeds._entities_as_meant(blocks, mended)).count(b"&#38;") == 3
        assert (mended.times, mended.first_line) == (2, 3)


def test_every_ampersand_bare_takes_time_in_proportion(monkeypatch):
    """Bytes that are looked at when lines are counted: of one block, once, however many are mended in it."""
    looked = []

    class Watched(bytes):
        def count(self, part, *ends):
            looked.append(len(self))
            return super().count(part, *ends)

        def __add__(self, other):
            return Watched(super().__add__(other))

        def __getitem__(self, key):
            found = super().__getitem__(key)
            return Watched(found) if isinstance(key, slice) else found

    n = 20_000
    mended = feeds._Mended()
    got = b"".join(feeds._entities_as_meant([Watched(b"&" * n)], mended))
    assert (got, mended.times) == (b"&#38;" * n, n)
    assert len(looked) <= 3
