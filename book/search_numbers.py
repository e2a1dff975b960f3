"""Numbers in the book's search: "14.6" finds pages, where Sphinx's own search splits it at the point and drops both."""

import re
from typing import Any, ClassVar

from sphinx.application import Sphinx
from sphinx.search.en import SearchEnglish


class WithNumbers(SearchEnglish):
    _word_re: ClassVar[re.Pattern[str]] = re.compile(r"\d+(?:\.\d+)+|\w+")
    js_splitter_code = r"var splitQuery = query => query.match(/\d+(?:\.\d+)+|[\p{Letter}\p{Number}_]+/gu) || [];"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_search_language(WithNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
