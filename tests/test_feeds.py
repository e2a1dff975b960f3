"""Feed files to products: every kind of damage and of a shop's ways to write, by a file made here."""

import gzip
import html
import itertools
import re

import pytest

from elrkit.catalogue import feed_files, feed_xml, feeds
from elrkit.catalogue.rules import ConfigError, FeedRules

SHORT = {"id": "id", "label": "kind", "image": "image"}  # columns of a short XML feed
HEAD = '<?xml version="1.0" encoding="utf-8"?>'
MEGABYTES = "x" * 11_000_000  # more than an XML parser takes in one piece


def read(tmp_path, content, name="feed.xml", **rules):
    """(products and reasons, what was forgiven) of one file."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    damage = []
    return [product for _, product in feeds.read_feed(path, FeedRules(**rules), damage)], damage


def values(found):
    """Of each product its values of id, label and image that are not empty, as one text; of another the reason."""
    return [
        each if isinstance(each, str) else " ".join(filter(None, (each.get(p) for p in ("id", "label", "image"))))
        for each in found
    ]


def item(k, more="", tag="product"):
    return f"<{tag}><id>p{k}</id><kind>Hat</kind><image>{k}.jpg</image>{more}</{tag}>\n"


def good(*numbers):
    return [f"p{k} Hat {k}.jpg" for k in numbers]


# ------------------------------------------------------------------------------------------------ XML

LAUGHS = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))


DOCTYPES = {
    "entities of entities": f'<!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]>',
    "a file of this machine": '<!DOCTYPE x [<!ENTITY s SYSTEM "file:///etc/passwd">]>',
    "a product": "<!DOCTYPE x [<!ENTITY p '<product><id>a</id></product>'>]>",
    "a file elsewhere": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd" [<!ENTITY s "x">]>',
    "an open quote": '<!DOCTYPE x "',
    "far away": "<!DOCTYPE x" + " " * 200_000 + "[]>",
}


@pytest.mark.parametrize("doctype", DOCTYPES.values(), ids=DOCTYPES)
def test_a_document_type_that_declares_anything_is_refused(doctype, tmp_path):
    with pytest.raises(feed_files.FileRefused, match=r"\(entities\) refused; mend by removing its <!DOCTYPE"):
        read(tmp_path, f"{doctype}<x>{item(1)}{item(2)}&l9;&s;</x>", columns=SHORT)


def test_a_document_type_that_only_names_an_outside_file_is_skipped_unread(tmp_path, monkeypatch):
    outside = 'SYSTEM "http://127.0.0.1:9/x.dtd"', "PUBLIC \"-//X//Y>\" 'http://127.0.0.1:9/[x]>.dtd' ", ""
    for named, block in itertools.product(outside, (3, 1 << 16)):
        monkeypatch.setattr(feed_xml, "BLOCK", block)
        found, damage = read(tmp_path, f"{HEAD}<!DOCTYPE x {named}><x>{item(1)}{item(2)}</x>", columns=SHORT)
        assert (values(found), damage) == (good(1, 2), [])


HOSTILE = {  # what stands in product 3, and how many products it may cost
    "long name": (f"<{'d' * 60_000}/>", 1),
    "long CDATA": (f"<d><![CDATA[{MEGABYTES}]]></d>", 1),
    "long comment": (f"<!--{MEGABYTES}-->", 1),
    "long attribute": (f'<d a="{MEGABYTES}"/>', 1),
    "open attribute": ('<d a="', 1),
    "CDATA without end": ("<![CDATA[", 7),
    "comment without end": ("<!--", 7),
    "item that is not closed": ("<product>", 1),
    "element that is not closed": ("<d>", 0),
    "NUL": ("\0", 1),
    "bare &": ("Salt & pepper", 0),
    "entity": ("&secret;", 0),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
@pytest.mark.parametrize(("hostile", "may_cost"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_markup_costs_its_own_product(hostile, may_cost, encoding, tmp_path):
    text = f"{HEAD}<x>{''.join(map(item, range(10)))}</x>".replace("Hat", "Färg")
    text = text.replace("<id>p3<", f"{hostile}<id>p3<").replace("utf-8", encoding)
    found, damage = read(tmp_path, text.encode(encoding), columns=SHORT)
    whole = [each.replace("Hat", "Färg") for each in good(*range(10))]
    kept = [each for each in values(found) if each != "malformed product"]
    assert len(found) == 10 + ("<product>" in hostile)
    assert set(kept) <= set(whole)
    assert set(whole) - set(kept) <= set(whole[3 : 3 + may_cost])
    assert 0 < len(damage) <= 100


def test_a_hostile_start_tag_costs_its_own_product(tmp_path):
    starts = [f'<product a="{MEGABYTES}">', f"<product {'d' * 60_000}='1'>", '<product a="x>', '<product a="1>2">']
    text = "".join(map(item, range(10)))
    for k, start in zip((1, 3, 5, 7), starts, strict=True):
        text = text.replace(f"<product><id>p{k}<", f"{start}<id>p{k}<")
    found, _ = read(tmp_path, f"<x>{text}</x>", columns=SHORT)
    assert set(good(0, 2, 4, 6, 7, 8, 9)) <= set(values(found))
    assert len(found) == 10
    assert all(each in ("malformed product", *good(*range(10))) for each in values(found))


@pytest.mark.parametrize("end", ["<product><id>p4</id>", "<product><id>p4</id><!-- ", "<product><id>p4</i"])
def test_what_is_cut_off_is_a_malformed_product(end, tmp_path):
    found, damage = read(tmp_path, f"<x>{item(0)}{item(1)}{end}", columns=SHORT)
    assert values(found) == [*good(0, 1), "malformed product"]
    assert damage == ["line 3: this <product> has no end"]


@pytest.mark.parametrize("block", [7, 64, 1000, 1 << 16])
def test_markup_may_be_cut_anywhere(block, tmp_path, monkeypatch):
    """Blocks far smaller than the products: nothing depends on where a block ends. Several documents, one behind the
    other; products in comments, CDATA and instructions are none."""
    monkeypatch.setattr(feed_xml, "BLOCK", block)
    hidden = item(99)
    rows = [f"{item(k)}<!-- {hidden} --><?x {hidden}?>" for k in range(10)]
    rows[3] = item(3, f"<d><![CDATA[{hidden}]]></d><!-- &ouml; & -->")
    rows[4] = item(4, "<t>Salt & pepper</t>")
    text = "".join(rows).replace("<product>", '<s:product id="&gt;&#39;>" n=\'"\'>').replace("</pro", "</s:pro")
    found, damage = read(tmp_path, f"{HEAD}<!-- <product> --><s:x xmlns:s='urn:s'>{text}</s:x>\n" * 2, columns=SHORT)
    assert values(found) == good(*range(10)) * 2
    assert damage == ["line 12: an & that begins no entity of XML, read as it is meant (2 times)"]


def test_hostile_products_take_work_in_proportion(tmp_path, monkeypatch):
    """Each stops a parser, or is never closed: what is parsed grows with the file, not with its square."""
    parsed, real = [], feed_xml.etree.fromstring
    monkeypatch.setattr(feed_xml.etree, "fromstring", lambda text, by: parsed.append(len(text)) or real(text, by))
    monkeypatch.setattr(feed_xml, "_LONGEST_PRODUCT", 1 << 16)
    text = "".join(item(k, f"<{'d' * 51_000}>") for k in range(30)) + "<product><d>" * 20_000 + item(1)
    found, damage = read(tmp_path, f"<x>{text}</x>", columns=SHORT)
    assert len(found) == 30 + 20_000 + 1
    assert values(found[30:]) == ["malformed product"] * 20_000 + good(1)
    assert len(damage) == 100
    assert sum(parsed) < 1.1 * len(text)


WHERE = [  # all the same product; the columns, where they are not those of SHORT
    # items inside an item are no new ones, and their fields are not its own
    (item(1, "<related><product>x</product><product><id>y</id></product></related>"), {}),
    ("<product><id>p1</id><kind>Hat</kind><image><product>1.jpg</product><product>x</product></image></product>", {}),
    (item(1, "<product/><product s='1'/>"), {}),
    # fields inside other elements; the least deep one counts, and of several the first
    ("<product><a><id>p1</id></a><b><kind>Hat</kind><image>1.jpg</image></b></product>", {}),
    ("<product><a><id>9</id></a><id>p1</id><kind>Hat</kind><kind>X</kind><image>1.jpg</image></product>", {}),
    ("<product><kind></kind><kind> </kind><id>p1</id><kind>Hat</kind><image>1.jpg</image></product>", {}),
    ("<product><id>p1</id><kind>H<b>a</b>t</kind><image>1.jpg</image></product>", {}),
    ('<product id="p1"><kind><![CDATA[Hat]]></kind><image>1.jpg</image></product>', {}),
    # paths
    ("<product><a><name>p1</name></a><b><name>Hat</name><x><name>1.jpg</name></x></b></product>",
     {"id": "a/name", "label": "b/name", "image": "b/x/name"}),
    # of one name, the prefix that is named counts, else any
    ("<product><id>9</id><g:id>p1</g:id><o:id>8</o:id><kind>Hat</kind><image>1.jpg</image></product>", {"id": "g:id"}),
    ("<product><kind>Sale</kind><g:kind></g:kind><g:kind>Hat</g:kind><kind>Late</kind><id>p1</id><g:image>1.jpg"
     "</g:image></product>", {}),
    ('<product xmlns:g="urn:g"><g:id>p1</g:id><id>9</id><kind>Hat</kind><image>1.jpg</image></product>',
     {"id": "g:id"}),
    ("<product><id>p1</id><kind>Hat</kind><image>1.jpg</image></product>", {"id": "g:id"}),
]  # fmt: skip


@pytest.mark.parametrize(("items", "columns"), WHERE)
def test_where_the_parts_of_a_product_are(items, columns, tmp_path):
    found, damage = read(tmp_path, f'<r xmlns:g="urn:g">{items}</r>', columns=SHORT | columns)
    assert (values(found), damage) == (good(1), [])


@pytest.mark.parametrize("encoding", ["utf-8", "ISO-8859-1", "windows-1252"])
@pytest.mark.parametrize(
    "before", [b"", b"\n", b"<br />\n<b>Notice</b>:  Undefined index in <b>/var/www/feed.php</b> on line <b>12</b>\n"]
)
def test_the_encoding_that_is_declared_counts_wherever_it_stands(before, encoding, tmp_path):
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n<x>{item(1)}</x>'.replace("Hat", "Kläder")
    assert values(read(tmp_path, before + text.encode(encoding), columns=SHORT)[0]) == ["p1 Kläder 1.jpg"]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"\xef\xbb\xbf\n\n" + item(1).encode(), "p1 Hat 1.jpg"),
        (item(1).encode("utf-16"), "p1 Hat 1.jpg"),
        (item(1).encode("utf-16-le"), "p1 Hat 1.jpg"),
        (b"<?xml version='1.0' encoding='utf-16'?>" + item(1).encode(), "p1 Hat 1.jpg"),
        (b"<?xml version='1.0' encoding='unicode_escape'?>" + item(1, "\\u0041").encode(), "p1 Hat 1.jpg"),
        (HEAD.encode() + item(1).replace("Hat", "Tröja").encode("latin-1"), "p1 Tr\ufffdja 1.jpg"),
    ],
)
def test_encodings_that_are_not_as_declared(content, wanted, tmp_path):
    assert values(read(tmp_path, content, columns=SHORT)[0]) == [wanted]


NO_FEEDS = {
    "not XML": ["no markup at all", ""],
    "no <product> in it": ["<shop><item/></shop>"],
    "no <product> in it; it has 3 times <item>; mend with --rules.item": [
        f"<rss>{'<title>t</title>' * 5}{'<item><title/><g/></item>' * 3}</rss>"
    ],
    "no <catid>, <thumbnail> in its <product>s; they have <id>, <g:kind>, <image>; mend with --rules.columns label TAG "
    "image TAG": [f"<x>{item(1).replace('kind>', 'g:kind>') * 2}</x>"],
}


@pytest.mark.parametrize("reason", NO_FEEDS)
def test_a_file_that_is_no_such_xml_is_refused_with_what_it_has(reason, tmp_path):
    for content in NO_FEEDS[reason]:
        with pytest.raises(feed_files.FileRefused, match=f"^{re.escape(reason)}$"):
            read(tmp_path, content, columns={"id": "id"})


def test_what_entities_mean_against_html_s_own_reader():
    text = "a & b &amp; &lt;&gt; &euro; &NotEqualTilde; &nosuch; &#228; &#x20AC; & &; &é &copy no; end&"
    mended = feed_xml._Mended()
    got = mended.as_meant(text, 1)
    once = html.unescape(text.replace("&copy no", "&amp;copy no"))  # without its semicolon it is text here
    assert html.unescape(got) == once
    assert "&#38; &#60;&#62;" in got
    assert (mended.times, mended.first) == (9, 1)
    mended = feed_xml._Mended()
    assert mended.as_meant("<a>\n<b>&amp;</b>\n<c>x & y</c>\n<d>&</d>", 5).count("&#38;") == 3
    assert (mended.times, mended.first) == (2, 7)


@pytest.mark.parametrize("damage", ["a\x01b", "<b>open", "a<br>b"])
def test_one_error_takes_no_entity_from_its_product_or_those_after_it(damage, tmp_path):
    shelf = "Bags &amp; Shoes &gt; &quot;Boots&quot; &apos;n&apos; &lt;more&gt;"
    found, errors = read(tmp_path, f"<x>{item(1, damage)}{item(2)}</x>".replace("Hat", shelf), columns=SHORT)
    assert errors
    assert [product["label"] for product in found] == [html.unescape(shelf)] * 2


# ------------------------------------------------------------------------------------------------ CSV

PLAIN = "id,label,image\np1,Hat,1.jpg\np2,Hat,2.jpg\n"
FEWER, MORE = "fewer columns than the header", "more columns than the header"


WRITTEN = [  # the same two products, as one shop or another writes them
    PLAIN,
    *(PLAIN.replace(",", sign) for sign in ";\t|"),
    *(first + PLAIN.replace(",", ";") for first in ("sep=;\n", '"sep=;"\r\n', "SEP=;\n")),
    PLAIN.replace(",", ", "),
    PLAIN.replace("Hat", ' "Hat"'),
    "Products of Example Ltd.\n\n;;\n" + PLAIN.replace(",", ";"),
    PLAIN.encode("utf-16"),
    PLAIN.encode("utf-8-sig").replace(b"\n", b"\r\n"),
    # empty cells that lack, or are too many, at the end of a row
    "id,label,image,title,note\np1,Hat,1.jpg\np2,Hat,2.jpg,x\n",
    "id,label,image\np1,Hat,1.jpg,\np2,Hat,2.jpg,, \n",
    # long cells and line breaks where nobody looks
    PLAIN.replace("label", "text,label").replace("Hat", f'"{"x" * 300_000}",Hat'),
    PLAIN.replace("label", "text,label").replace("Hat", '"a\nb ""c"" d\n\ne, f, g",Hat'),
]
RULED = [  # by rules of its own; a column may serve two parts, and one that is named for a part is not another's
    (PLAIN.replace(",", ";"), {"delimiter": ";"}),
    ("sku,kind,photo\np1,Hat,1.jpg\np2,Hat,2.jpg\n", {"columns": {"id": "sku", "label": "kind", "image": "photo"}}),
    (PLAIN, {"columns": {"name": "label", "title": "id"}}),
    (PLAIN.replace("id", "PK"), {"columns": {"id": "PK"}}),
]


@pytest.mark.parametrize(("content", "rules"), [*((content, {}) for content in WRITTEN), *RULED])
def test_one_csv_reader_for_all(content, rules, tmp_path):
    assert values(read(tmp_path, content, "feed.csv", **rules)[0]) == good(1, 2)


def test_a_row_of_another_length_is_counted(tmp_path):
    content = "id,label,image\np1,Hat\np2,Hat,2.jpg,x\n\n,\np3,Hat,3.jpg\n"
    assert values(read(tmp_path, content, "feed.csv")[0]) == [FEWER, MORE, "", *good(3)]


@pytest.mark.parametrize("name", ["feed.tsv", "feed.txt", "feed.csv.gz", "feed.CSV"])
def test_suffixes(name, tmp_path):
    packed = gzip.compress(PLAIN.encode()) if name.endswith("gz") else PLAIN.replace(",", "\t").encode()
    assert values(read(tmp_path, packed, name)[0]) == good(1, 2)
    assert values(read(tmp_path, gzip.compress(item(1).encode()), "f.xml.gz", columns=SHORT)[0]) == good(1)


@pytest.mark.parametrize("at", range(12))
def test_a_quote_that_is_never_closed_costs_its_own_row(at, tmp_path):
    titles = [f'"shirt, size {k}"' if k % 3 == 0 else f"shirt {k}" for k in range(12)]
    titles[at] = '"27 inch'
    if at == 2:
        titles[6] = '"27 inch'
    rows = [f"p{k},{title},Hat,{k}.jpg\n" for k, title in enumerate(titles)]
    found = values(read(tmp_path, "id,title,label,image\n" + "".join(rows), "feed.csv")[0])
    lost = {at, 6} if at == 2 else {at}
    assert [each for each in found if each.startswith("p")] == good(*(k for k in range(12) if k not in lost))
    assert len(found) == 12


def test_a_description_over_several_lines_is_one_cell_whatever_its_commas(tmp_path):
    prose = '"Soft\ncotton, wool, silk\nwash cold"'
    rows = [f"p{k},Hat,{k}.jpg,{prose}\n" for k in range(3)]
    assert values(read(tmp_path, "id,label,image,text\n" + "".join(rows), "feed.csv")[0]) == good(0, 1, 2)
    four = prose.replace("silk", "silk, linen")
    rows = [f"p{k},Hat,{k}.jpg,{four}\n" for k in range(3)]  # as many commas as the header has
    assert values(read(tmp_path, "id,label,image,text\n" + "".join(rows), "feed.csv")[0]) == good(0, 1, 2)


def test_quotes_that_never_balance_cost_their_rows_in_proportion(tmp_path, monkeypatch):
    """Each line closes a quoted field and opens the next: one record would run to the end, from each line again."""
    monkeypatch.setattr(feeds, "_LONGEST_RECORD", 20)
    taken, real = [], feeds._Lines.__next__
    monkeypatch.setattr(feeds._Lines, "__next__", lambda lines: taken.append(1) or real(lines))
    hostile = 'x"y,"\n' * 2_000
    found, _ = read(tmp_path, f'id,label,image\np1,Hat,1.jpg\nb,"{hostile}b,hat,1.jpg\n', "feed.csv")
    assert values(found)[0] == good(1)[0]
    assert len(taken) < 2_000 * 22


def test_a_line_or_a_field_without_end_comes_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "_LONGEST_LINE", 1_000)
    found, _ = read(tmp_path, f"id,label,image\np1,Hat,1.jpg\n{'x' * 5_000}\np2,Hat,2.jpg\n", "feed.csv")
    assert values(found) == [*good(1), *[FEWER] * 5, *good(2)]
    found, _ = read(tmp_path, f'id,label,image\np1,Hat,1.jpg\n"{"x" * 1_500}\np2,Hat,2.jpg\n', "feed.csv")
    assert values(found)[-1] == good(2)[0]


@pytest.mark.parametrize(
    ("content", "rules", "reason"),
    [
        (b"PK\x03\x04 and so on", {}, "an archive or a spreadsheet's own format; unpack it, or save it as CSV"),
        (b"\x1f\x8b\x08\0\0\0", {}, "compressed (gzip), and damaged; copy it again"),
        (gzip.compress(PLAIN.encode() * 99, mtime=0)[:-20], {}, "compressed (gzip), and damaged; copy it again"),
        (b"odd", {"encoding": "utf-16"}, "cannot be read as utf-16; mend with --rules.encoding"),
        (b"", {}, "no column id, image, label; it has none; mend with --rules.columns id COLUMN label COLUMN image "
         "COLUMN"),
        (b"id|photo\na|0.jpg\n", {}, "no column image, label; it has id, photo; mend with --rules.columns label COLUMN "
         "image COLUMN"),
        (PLAIN.encode(), {"columns": {"title": "Name"}}, "no column Name; it has id, label, image; mend with "
         "--rules.columns title COLUMN"),
        (PLAIN.encode(), {"delimiter": ";"}, "no column id, image, label; it has id,label,image; mend with another "
         "--rules.delimiter, or none, or --rules.columns id COLUMN label COLUMN image COLUMN"),
        ("Größe,label,image\na,Hat,0.jpg\n".encode("cp1252"), {}, "no column id; it has Gr\\udcf6\\udcdfe, label, "
         "image; mend with --rules.encoding cp1252 or latin-1 or --rules.columns id COLUMN"),
        (b"\x1b[31mid,label,image\n", {}, "no column id; it has \\x1b[31mid, label, image; mend with --rules.columns "
         "id COLUMN"),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_there_and_how_to_mend_it(content, rules, reason, tmp_path):
    with pytest.raises(feed_files.FileRefused) as caught:
        read(tmp_path, content, "feed.csv", **rules)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"columns": {"picture": "x"}}, "columns: .*there is no picture; the parts of a product are id, label"),
        ({"encoding": "utf9"}, "encoding: .*'utf9' is no encoding"),
        ({"encoding": "hex"}, "encoding: .*'hex' is no encoding"),
        *(({"delimiter": each}, "delimiter: .* give one character, such as ; or a tab$") for each in (";;", "", '"')),
    ],
)
def test_rules_that_fit_no_feed_are_named(rules, message):
    with pytest.raises(ConfigError, match=message):
        FeedRules(**rules)


# ------------------------------------------------------------------------------------------------ files


def test_which_files_of_a_folder_are_a_feed(tmp_path):
    """Not what systems leave there, nor what was written about the feed."""
    for name in ("b.csv", "a.xml", "men/c.TSV", "d.csv.gz", "notes.pdf", "._b.csv", "__MACOSX/b.csv", "@eaDir/a.xml",
                 ".ipynb_checkpoints/b.csv"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PLAIN)
    for name, columns in {
        "out.dropped.csv": feed_files.DROPPED_COLUMNS,
        "decisions.csv": feed_files.DECISION_COLUMNS,
        "labels.csv": ["id", "title", "label", "suggested_label", "confidence", "reason"],
        "truth.csv": ["id", "label", "true_label", "article", "kind", "image", "thumbnail"],
    }.items():
        (tmp_path / name).write_text(",".join(columns) + "\n")
    found = [name for name, _ in feed_files.feed_files([tmp_path], feeds.READERS)]
    assert found == ["a.xml", "b.csv", "d.csv.gz", "men/c.TSV"]
    assert [name for name, _ in feed_files.feed_files([tmp_path / "men", tmp_path / "b.csv"], feeds.READERS)] == [
        "c.TSV", "b.csv",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no feed file \(\.xml, .*\) in .*empty; give the feed first"):
        feed_files.feed_files(tmp_path / "empty", feeds.READERS)
